#!/bin/bash
# The head of a Ray cluster on a few machines of your own, in the foreground (tmux, systemd, nohup): Ctrl-C ends it.
# tsdf-ray is installed on all of them, the same version, and on PATH where these scripts are started.
#
#   head$    deploy/hosts/start-head.sh
#   head$    scp -p ~/.tsdf-ray/token WORKER:.tsdf-ray/token         # for each worker
#   worker$  deploy/hosts/start-worker.sh HEAD_IP:6379               # on each worker
#   head$    export RAY_AUTH_TOKEN_PATH=~/.tsdf-ray/token
#   head$    tsdf-ray nodes --address HEAD_IP:6379 --wait 3 --timeout 300
#   head$    tsdf-ray play SCENARIO --out /shared/runs/NAME --resume --address HEAD_IP:6379
#
# From your own machine, with the dashboard through a tunnel: ssh -L 8265:127.0.0.1:8265 HEAD, then
# `tsdf-ray submit SCENARIO --address http://127.0.0.1:8265 --out /shared/runs/NAME`.
#
# Traffic between the machines is authenticated, not encrypted: keep them in a network of their own.
set -euo pipefail

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.tsdf-ray/token}
unset RAY_AUTH_TOKEN RAY_ADDRESS
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
    (
        umask 077
        mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
        head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH"
    )
fi
chmod 600 "$RAY_AUTH_TOKEN_PATH"

echo "token: $RAY_AUTH_TOKEN_PATH (mode 0600); workers need a copy of it" >&2
# Options given here come last, for example --num-gpus=2 --object-store-memory=8000000000.
exec ray start --head --block --port="${PORT:-6379}" --dashboard-host=127.0.0.1 --dashboard-port="${DASHBOARD_PORT:-8265}" \
    --disable-usage-stats "$@"
