#!/bin/bash
# The part of the official entrypoint that compose files and testcontainers rely on: POSTGRES_USER,
# _PASSWORD, _DB, _INITDB_ARGS, _HOST_AUTH_METHOD (each also as …_FILE), PGDATA, *.sh and *.sql in
# /docker-entrypoint-initdb.d on first start.
set -Eeuo pipefail

value() {  # value NAME DEFAULT: the variable, or the content of the file that NAME_FILE names
    local file="$1_FILE"
    if [ -n "${!1:-}" ] && [ -n "${!file:-}" ]; then
        echo "error: both $1 and $file are set" >&2
        exit 1
    fi
    if [ -n "${!file:-}" ]; then cat "${!file}"; else printf '%s' "${!1:-$2}"; fi
}

[ "${1#-}" = "$1" ] || set -- postgres "$@"
[ "$1" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$(dirname "$PGDATA")" /var/run/postgresql
    exec chroot --skip-chdir --userspec=postgres:postgres / "$BASH_SOURCE" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=$(value POSTGRES_USER postgres)
    password=$(value POSTGRES_PASSWORD '')
    database=$(value POSTGRES_DB "$user")
    method=$(value POSTGRES_HOST_AUTH_METHOD scram-sha-256)
    if [ -z "$password" ] && [ "$method" != trust ]; then
        echo 'Error: Database is uninitialized and superuser password is not specified.' >&2
        exit 1
    fi
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    # shellcheck disable=SC2086 # arguments are separated by blanks, as the official image has it
    initdb --username "$user" --pwfile <(printf '%s\n' "${password:-unused}") --encoding UTF8 \
        --auth-local trust --auth-host "$method" ${POSTGRES_INITDB_ARGS:-} --pgdata "$PGDATA"
    echo "host all all all $method" >> "$PGDATA/pg_hba.conf"
    # First start: on the socket only, so that nobody sees it half made.
    pg_ctl --pgdata "$PGDATA" --options "-c listen_addresses='' -k /var/run/postgresql" --wait start
    sql() { psql --host /var/run/postgresql -v ON_ERROR_STOP=1 --username "$user" --no-psqlrc "$@"; }
    if [ "$database" != postgres ]; then
        sql --dbname postgres -v name="$database" <<< 'CREATE DATABASE :"name"'
    fi
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sh) bash "$script" ;;
            *.sql) sql --dbname "$database" --file "$script" ;;
        esac
    done
    pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
    echo 'PostgreSQL init process complete; ready for start up.'
fi

exec "$@" -c "listen_addresses=*" -c unix_socket_directories=/var/run/postgresql
