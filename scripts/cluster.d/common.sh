# shellcheck shell=bash
# Words that every part of scripts/cluster uses.

say() {
    echo "cluster: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

ensure_root() {
    ((EUID == 0)) || fail "needs root, because it makes namespaces, mounts and a network bridge"
}

# One lock for the machine, because there is one place for a cluster, and
# because two clones must not build the same program at the same time. It is on
# a directory that every machine has, and so leaves no file. It is held through
# descriptor 9, which long-lived children must close.
take_lock() {
    mkdir -p "$cache"
    exec 9</run
    flock --nonblock 9 && return
    say "waiting for another run of scripts/cluster on this machine to end"
    flock 9
}

# wait_for SECONDS WHAT COMMAND...
#
# Waits until COMMAND succeeds. Fails when it does not in time, or as soon as
# the cluster has ended, with the ends of the logs.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ! holder_is_alive; then
            show_logs
            fail "the cluster ended while waiting for $what"
        fi
        if ((SECONDS >= deadline)); then
            show_logs
            fail "gave up waiting for $what"
        fi
        sleep 0.1
    done
}

show_logs() {
    tail --lines=12 "$cluster"/logs/*.log >&2 || true
}
