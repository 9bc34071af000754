# Shared by the scripts here: installing what is missing, and a throw-away PostgreSQL. Sourced, never run.
# shellcheck shell=bash

# Runs a command as root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need COMMAND PACKAGE: notes PACKAGE as missing where COMMAND (a name or a pattern of paths) is not there.
missing=()
need() {
    command -v "$1" >/dev/null 2>&1 && return
    compgen -G "$1" >/dev/null && return
    missing+=("$2")
}

# Installs everything noted as missing, in one go.
install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || { echo "please install: ${missing[*]}" >&2; exit 2; }
    echo "installing: ${missing[*]}" >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    missing=()
}

# Makes sure that cargo is there, and a C compiler for the libraries that want one.
need_rust() {
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    need cc gcc
    command -v cargo >/dev/null || { echo "a Rust toolchain is needed: https://rustup.rs" >&2; exit 2; }
}

# venv FOLDER LIST [OPTION…]: a Python environment target/FOLDER with what LIST names, made again when the list changes.
venv() {
    local folder=$PWD/target/$1 list=$2
    cmp -s "$list" "$folder/requirements.txt" && return
    rm -rf "$folder"
    python3 -m venv "$folder" \
        && "$folder/bin/pip" install --quiet --disable-pip-version-check --retries 10 --timeout 60 "${@:3}" --requirement "$list" \
        && cp "$list" "$folder/requirements.txt"
}

# The Python servers and judges of the tests, first in PATH.
python_tools() {
    python3 -c 'import venv, ensurepip' 2>/dev/null || { missing+=(python3-venv); install_missing; }
    venv python tests/requirements.txt
    export PATH="$PWD/target/python/bin:$PATH"
}

# The folder of PostgreSQL's own programs, newest version.
pg_bin() {
    compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1
}

# Runs one of PostgreSQL's programs, as the user postgres where we are root (which PostgreSQL refuses to run as).
pg() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$(pg_bin)/$1" "${@:2}")
    else
        "$(pg_bin)/$1" "${@:2}"
    fi
}

# start_postgres FOLDER [SETTING…]: a new cluster in FOLDER/data on a free port of 127.0.0.1; sets PGPORT.
start_postgres() {
    local folder=$1
    shift
    if [ "$(id -u)" = 0 ]; then chown postgres:postgres "$folder"; fi
    pg initdb --no-sync --auth=trust --username=postgres --encoding=UTF8 --locale=C.UTF-8 -D "$folder/data" >/dev/null
    PGPORT=$(free_port)
    export PGPORT
    local options="-p $PGPORT -c listen_addresses=127.0.0.1 -c unix_socket_directories=''" setting
    for setting in "$@"; do options+=" -c $setting"; done
    pg pg_ctl -D "$folder/data" -l "$folder/data/server.log" -o "$options" -w start >/dev/null
}

# stop_postgres FOLDER: stops what start_postgres started there.
stop_postgres() {
    [ -f "$1/data/postmaster.pid" ] || return 0
    pg pg_ctl -D "$1/data" -m immediate -w stop >/dev/null 2>&1 || true
}

# A free port of 127.0.0.1.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}
