# shellcheck shell=bash
# Start, state and end of the cluster.

readonly components=(etcd containerd kube-apiserver kube-controller-manager kube-scheduler kubelet)

# The machine has one place for a cluster: its ports and its bridge. Who took it is
# written in $holding: the `directory` and `version` of its cluster, and as `holder` the
# process that keeps the namespace, told by boot, process id and start time, since ids
# are used again.

held_directory() {
    cat "$holding/directory" 2>/dev/null
}

holder_is_another() {
    [[ -e $holding/directory && $(held_directory) != "$repository" ]]
}

holder_is_alive() {
    local boot pid start
    read -r boot pid start 2>/dev/null <"$holding/holder" || return 1
    [[ $boot == "$(</proc/sys/kernel/random/boot_id)" && $start == "$(start_time "$pid")" ]]
}

holder_pid() {
    cut -d' ' -f2 "$holding/holder"
}

# The 22nd field, counted behind the program's name, which may hold spaces.
start_time() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}

# The process that all components and pods descend from: the holder's only child.
first_process() {
    pgrep --parent "$(holder_pid)"
}

# The kernel keeps 15 characters of a program's name.
component_pid() {
    local parent
    parent=$(first_process) || return 1
    pgrep --parent "$parent" --exact "${1:0:15}"
}

refuse_if_held_by_another() {
    if holder_is_another && holder_is_alive; then
        fail "the cluster of $(held_directory) is up, and a machine has room for one;" \
            "end it with scripts/cluster down there"
    fi
}

standing_version() {
    cat "$holding/version"
}

is_up() {
    holder_is_alive && ! holder_is_another && node_is_ready
}

node_is_ready() {
    [[ $("$cluster/bin/kubectl" --kubeconfig "$kubeconfig" --request-timeout 5s get node node1 \
        --output 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) == True ]]
}

start_cluster() {
    local version=$1 images_dir image
    images_dir=$(make_images)
    rm -rf "$cluster"
    mkdir -p "$cluster"/{bin,lib,logs,tmp}
    chmod 1777 "$cluster/tmp"
    ln -s "$cache/$version/kubectl" "$cluster/bin/kubectl"
    write_config "$version"
    prepare_host "$version"
    start_first_process "$version"

    wait_for 60 "containerd" inside_cluster ctr version
    for image in "${images[@]}"; do
        load_image "$images_dir/$image.tar"
    done
    wait_for 120 "the node to be ready" node_is_ready
    wait_for 60 "the default service account" kubectl_admin get serviceaccount default
    make_storage_class
    run_first_pod
}

# `setsid` and `nohup` let it outlive the shell that called; the environment is left
# behind, so that no proxy or debug setting of that shell governs the cluster. The
# process records itself before it becomes the holder, so that even a start that is
# killed at this point can be cleaned up.
start_first_process() {
    local pid deadline=$((SECONDS + 10)) path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    {
        pid=$BASHPID
        echo "$(</proc/sys/kernel/random/boot_id) $pid $(start_time "$pid")" >"$holding/holder"
        join_control_group
        exec setsid nohup env --ignore-environment PATH="$path" HOME=/root \
            unshare --mount --pid --fork --mount-proc --kill-child \
            "$parts/init" "$cluster" "$cache/$1" "$1"
    } </dev/null >"$cluster/logs/init.log" 2>&1 9>&- &
    until [[ -s $holding/holder ]]; do
        ((SECONDS < deadline)) || fail "the first process does not start; see $cluster/logs/init.log"
        sleep 0.01
    done
}

# Claims are answered with directories below the cluster's /tmp, by the controller
# manager itself.
make_storage_class() {
    kubectl_admin create --filename - >/dev/null <<END
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/host-path
END
}

kubectl_admin() {
    "$cluster/bin/kubectl" --kubeconfig "$kubeconfig" --request-timeout 10s "$@"
}

# Only a pod that ran to its end shows that scheduler, kubelet, containerd and network
# work together.
run_first_pod() {
    kubectl_admin create --filename - >/dev/null <<END
apiVersion: v1
kind: Pod
metadata: {name: first-pod, namespace: default}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: "localhost/busybox:dev", imagePullPolicy: Never, command: ["true"]}
END
    wait_for 60 "the first pod to run to its end" first_pod_succeeded
    kubectl_admin delete pod first-pod --wait >/dev/null
}

first_pod_succeeded() {
    [[ $(kubectl_admin get pod first-pod --output 'jsonpath={.status.phase}') == Succeeded ]]
}

# Ends whatever cluster holds the machine's place, alive or dead. The caller has made
# sure that it is not another directory's living one.
end_cluster() {
    if holder_is_alive; then
        end_processes
    fi
    undo_host
}

# The kernel ends every process of a PID namespace with its first one, and the holder
# sees that one end only when all of them have. Mounts and network namespaces go with
# the last process that used them.
end_processes() {
    local pid deadline=$((SECONDS + 30))
    while holder_is_alive; do
        # In the first moment there is no first process yet.
        pid=$(first_process) || pid=$(holder_pid)
        kill -KILL "$pid" 2>/dev/null || true
        ((SECONDS < deadline)) || fail "process $(holder_pid) does not end"
        sleep 0.05
    done
}

abandon_start() {
    say "the start failed; the logs stay in $cluster/logs"
    end_cluster
}
