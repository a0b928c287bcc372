#!/bin/sh
# Brings .venv and the page's third-party files up to date; `make` runs it before everything else.
#   setup.sh run    what a hub needs (make demo)
#   setup.sh dev    that, and the tools (make check, make test, …)
#   setup.sh test   that, and the Debian packages that the tests drive, when root and apt-get are there
# A second run changes nothing and takes 0.1 s.
set -eu
cd "$(dirname "$0")/.."
level=$1
root=$(pwd)
python=.venv/bin/python
can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }
apt_install() {
    echo "setup: installing Debian packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null >/dev/null
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

find_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "setup: Python 3.11 or newer is needed and was not found; install it and run the same command again." >&2
    exit 1
}

make_venv() {
    if [ -x $python ] && $python -c 'import pip' 2>/dev/null; then
        return
    fi
    found=$(find_python)
    # Debian ships `venv` without the part that installs pip.
    if ! "$found" -c 'import ensurepip, venv' 2>/dev/null; then
        package="python$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
        if can_apt; then
            apt_install "$package"
        else
            echo "setup: this Python cannot make environments; run 'sudo apt-get install $package' first." >&2
            exit 1
        fi
    fi
    echo "setup: making .venv with $("$found" --version)"
    rm -rf .venv
    "$found" -m venv .venv
}

pip_install() { $python -m pip install -qq --disable-pip-version-check --no-input "$@"; }

# What the lock files named and this folder come to; an installation is repeated when it has changed.
state_of() {
    # shellcheck disable=SC2086
    echo "$root $(cat $1 | cksum)"
}

# is_done STAMP FILES: tells whether `done_with` has been said for these files as they are.
is_done() { [ "$(cat ".venv/.$1" 2>/dev/null || true)" = "$(state_of "$2")" ]; }
done_with() { state_of "$2" >".venv/.$1"; }

install_lock() {
    echo "setup: installing the packages of requirements/ into .venv ($*)"
    for lock in "$@"; do
        set -- "$@" -r "requirements/$lock.lock"
        shift
    done
    pip_install --require-hashes "$@"
}

install_page() {
    if $python deploy/wheel/backend.py --is-complete; then
        return
    fi
    if ! command -v npm >/dev/null 2>&1; then
        echo "setup: no npm here; installing it into .venv"
        pip_install --require-hashes -r requirements/npm.lock
    fi
    echo "setup: fetching the page's third-party files"
    $python deploy/wheel/backend.py
}

install_debian_packages() {
    command -v dpkg-query >/dev/null 2>&1 || return 0
    missing=
    for package in $(grep -v '^#' requirements/debian.txt); do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if can_apt; then
        # shellcheck disable=SC2086
        apt_install $missing
    else
        echo "setup: tests that need these Debian packages will be skipped:$missing" >&2
    fi
}

locks="requirements/runtime.lock requirements/build.lock"
projects="pyproject.toml device_sdk/pyproject.toml"
make_venv
case $level in
run)
    # `dev` holds all of it, in the same versions (a test compares them).
    if ! is_done dev requirements/dev.lock && ! is_done run "$locks"; then
        install_lock runtime build
        done_with run "$locks"
    fi
    ;;
dev | test)
    if ! is_done dev requirements/dev.lock; then
        install_lock dev
        done_with dev requirements/dev.lock
    fi
    ;;
*)
    echo "setup: unknown level '$level' (run, dev, test)" >&2
    exit 2
    ;;
esac
install_page
if ! is_done link "$projects"; then
    pip_install --no-deps --no-build-isolation -e ./device_sdk -e .
    done_with link "$projects"
fi
if [ "$level" = test ]; then
    install_debian_packages
fi
