#!/bin/bash
# A worker of the cluster that start-head.sh began, in the foreground: start-worker.sh HEAD_IP:6379 [OPTIONS OF ray start]
set -euo pipefail

address=${1:?say where the head is: HEAD_IP:6379}
shift
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.tsdf-ray/token}
unset RAY_AUTH_TOKEN RAY_ADDRESS
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
    echo "$RAY_AUTH_TOKEN_PATH: there is no token; copy the head's: scp -p HEAD:.tsdf-ray/token $RAY_AUTH_TOKEN_PATH" >&2
    exit 2
fi
if [ -n "$(find "$RAY_AUTH_TOKEN_PATH" -perm /077)" ]; then
    echo "$RAY_AUTH_TOKEN_PATH: others may read it; chmod 600 $RAY_AUTH_TOKEN_PATH" >&2
    exit 2
fi
exec ray start --block --address="$address" --disable-usage-stats "$@"
