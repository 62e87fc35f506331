# shellcheck shell=bash
# What the cluster needs of the machine outside of its own namespace: a bridge, one
# rule for addresses, a control group, a few kernel settings. All of it is undone by
# `undo_host`, which works from any state and for the cluster of any directory.

readonly bridge=executor0
# The machine as pods see it. API server and kubelet listen on it and nowhere else.
readonly bridge_address=10.88.0.1
readonly pod_network=10.88.0.0/16
readonly service_network=10.96.0.0/24
# The address of the service `kubernetes`: the first of the service network.
readonly service_address=10.96.0.1
readonly api_port=6443
readonly chain=EXECUTOR-CLUSTER
readonly control_group=executor-cluster

# The kubelet and the bridge plugin set these for the whole machine.
readonly kernel_settings=(
    kernel.keys.root_maxbytes kernel.keys.root_maxkeys kernel.panic kernel.panic_on_oops
    net.ipv4.ip_forward vm.overcommit_memory vm.panic_on_oom
)

prepare_host() {
    mkdir -p "$holding"
    echo "$repository" >"$holding/directory"
    echo "$1" >"$holding/version"
    save_kernel_settings
    make_bridge
    make_service_rule
    make_control_group
}

undo_host() {
    remove_service_rule
    remove_bridge
    remove_control_group
    restore_kernel_settings
    rm -rf "$holding"
}

save_kernel_settings() {
    local setting
    for setting in "${kernel_settings[@]}"; do
        echo "$setting=$(<"/proc/sys/${setting//.//}")"
    done >"$holding/kernel-settings"
}

restore_kernel_settings() {
    local line
    [[ -e $holding/kernel-settings ]] || return 0
    while read -r line; do
        local setting=${line%%=*}
        echo "${line#*=}" >"/proc/sys/${setting//.//}"
    done <"$holding/kernel-settings"
}

# The bridge is made here and not left to the network plugin, because the machine's
# address on it must answer before the first pod exists. Its own hardware address
# keeps it from taking that of each new pod.
make_bridge() {
    ip link add "$bridge" address 02:00:0a:58:00:01 type bridge
    ip address add "$bridge_address/${pod_network#*/}" dev "$bridge"
    ip link set "$bridge" up
}

# The pods' ends of their links go with their namespaces, which the kernel removes a
# little after the last process; the ends at the bridge are removed here at once.
remove_bridge() {
    local port
    [[ -e /sys/class/net/$bridge ]] || return 0
    for port in /sys/class/net/"$bridge"/brif/*; do
        [[ ! -e $port ]] || ip link delete "$(basename "$port")" 2>/dev/null || true
    done
    ip link delete "$bridge"
}

# Pods reach the API server at the address of its service. There is no kube-proxy; for
# one service with one endpoint, one rule does its work.
make_service_rule() {
    iptables --wait --table nat --new-chain "$chain"
    iptables --wait --table nat --append "$chain" --destination "$service_address" \
        --protocol tcp --dport 443 --jump DNAT --to-destination "$bridge_address:$api_port"
    iptables --wait --table nat --insert PREROUTING --in-interface "$bridge" --jump "$chain"
}

remove_service_rule() {
    local rule=(PREROUTING --in-interface "$bridge" --jump "$chain")
    while iptables --wait --table nat --delete "${rule[@]}" 2>/dev/null; do :; done
    iptables --wait --table nat --flush "$chain" 2>/dev/null || true
    iptables --wait --table nat --delete-chain "$chain" 2>/dev/null || true
}

# Prints the roots of the control group hierarchies: one for each controller in
# version 1, a single one in version 2.
control_group_roots() {
    awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts
}

# The cluster lives below a group of its own: the components in `components`, the pods
# where the kubelet puts them. So it is known which groups are ours, and the cluster
# does not end with the session that started it, where a session ends by its group.
make_control_group() {
    local root
    while read -r root; do
        # In version 2 a controller must be passed on by the group above.
        if [[ -s $root/cgroup.controllers ]]; then
            echo "+cpu +cpuset +memory +pids" >"$root/cgroup.subtree_control"
        fi
        make_group "$root" "$control_group"
        make_group "$root/$control_group" components
    done < <(control_group_roots)
}

# make_group PARENT NAME
#
# In version 1 a group has no processors and no memory until it is told which.
make_group() {
    local file
    mkdir -p "$1/$2"
    [[ ! -e $1/cgroup.clone_children ]] || for file in cpuset.cpus cpuset.mems; do
        [[ ! -e $1/$file ]] || cat "$1/$file" >"$1/$2/$file"
    done
}

# Moves the calling process.
join_control_group() {
    local root
    while read -r root; do
        echo "$BASHPID" >"$root/$control_group/components/cgroup.procs"
    done < <(control_group_roots)
}

remove_control_group() {
    local root deadline=$((SECONDS + 20))
    while read -r root; do
        # A group is busy until the last of its processes has been reaped.
        while [[ -d $root/$control_group ]]; do
            find "$root/$control_group" -depth -type d -exec rmdir {} + 2>/dev/null || true
            ((SECONDS < deadline)) || fail "cannot remove the control group $root/$control_group"
            sleep 0.02
        done
    done < <(control_group_roots)
}
