#!/bin/sh
# Makes the lock files again from pyproject.toml and the .in files. Needs uv; extra arguments go to it (--upgrade).
set -eu
cd "$(dirname "$0")/.."

compile() {
    output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-emit-find-links --no-emit-package telemetry-device-sdk \
        --custom-compile-command "sh requirements/lock.sh" --output-file "requirements/$output" "$@"
}

compile runtime.lock pyproject.toml "$@"
compile dev.lock pyproject.toml --extra dev "$@"
compile build.lock requirements/build.in "$@"
compile npm.lock requirements/npm.in "$@"
