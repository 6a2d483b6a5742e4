"""Races as jobs of a Ray cluster: a thin skin over Ray's job submission client."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from actors.token import REMEDY, source, use_token
from tsdf_ray.errors import UserError
from tsdf_ray.files import without_secrets
from tsdf_ray.jobs import SCENARIO_FILE, Job, NoAnswer, Order, State

STATES: dict[str, State] = {
    JobStatus.PENDING: "waiting",
    JobStatus.RUNNING: "running",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.STOPPED: "stopped",
}
FIRST_ANSWER_SECONDS, ANSWER_SECONDS = 10.0, 60.0
NOT_FOUND = 404
STOP_SECONDS = "60"
"""How long a job that is asked to stop may take to save its work; Ray's own 3 seconds are too few for a step."""


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Requests with a time limit: Ray's own wait for ever."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        return super()._do_request(*args, **{"timeout": ANSWER_SECONDS, **kwargs})


class RayJobs:
    """The jobs of the cluster whose dashboard is at `address`. Raises UserError: no answer, no token, a wrong one."""

    def __init__(self, address: str) -> None:
        self._name = without_secrets(address)
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
            logging.getLogger(name).setLevel(logging.WARNING)
        use_token()
        with self._named():
            # First of all, and quickly: does anything answer?
            if requests.get(f"{address}/api/version", timeout=FIRST_ANSWER_SECONDS).status_code == NOT_FOUND:
                raise UserError(
                    f"{self._name}: what answers there is no dashboard of a Ray cluster; check --address, and where a "
                    "tunnel leads"
                )
            with _address_in_environment(address):
                self._client = _Client(address)

    def find(self, name: str) -> Job | None:
        """The job called `name`, None when there is none."""
        with self._named():
            try:
                info = self._client.get_job_info(name)
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise
        return Job(name, STATES[info.status], info.driver_exit_code, info.message or "")

    def submit(self, order: Order) -> None:
        """Hand a job in; one of that name that is there already stays as it is."""
        with tempfile.TemporaryDirectory(prefix="tsdf-ray-") as folder, self._named():
            (Path(folder) / SCENARIO_FILE).write_text(order.scenario, encoding="utf-8")
            try:
                self._client.submit_job(
                    entrypoint=order.entrypoint,
                    submission_id=order.id,
                    runtime_env={"working_dir": folder, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": STOP_SECONDS}},
                    metadata=order.metadata,
                )
            except RuntimeError:
                # Somebody else may have been quicker.
                if self.find(order.id) is None:
                    raise

    def log(self, name: str) -> str:
        """What the job has printed so far; empty before it runs."""
        with self._named():
            return str(self._client.get_job_logs(name))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """From the errors of Ray and of the network to ours."""
        try:
            yield
        except AuthenticationError as error:
            sent = source() if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" else None
            what = f"refuses our token (from {sent})" if sent else "wants a token, and none was sent"
            raise UserError(f"{self._name}: the cluster {what}; {REMEDY}") from error
        except (requests.exceptions.RequestException, ConnectionError) as error:
            raise NoAnswer(
                f"{self._name}: no dashboard of a Ray cluster answers there ({type(error).__name__}); "
                "check --address, and that a tunnel to the head is open"
            ) from error
        except RuntimeError as error:
            raise UserError(f"{self._name}: the cluster refused the request: {error}") from error


@contextmanager
def _address_in_environment(address: str) -> Iterator[None]:
    """Ray lets the environment overrule the address it is given."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
