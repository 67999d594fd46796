# Keeps one server and ends it, with all that it left, when the program that asked for it is gone.
# Arguments: the server's folder, "keep" or "remove" (the folder, at the end), then the server's command line.
# Standard input carries orders (start, term, kill); its end means that the asking program is gone, however it
# went. Standard output tells "started PID" and "exited STATUS".
folder=$1
at_end=$2
shift 2
pid_file=$folder/server.pid

# The processes of a Docker engine's containers know nothing of it, but their cgroups have their containers' names.
contained() {
    for container in "$folder"/data/containers/*/; do
        container=$(basename "$container")
        [ "$container" = '*' ] || grep -lsF -e "$container" /proc/[0-9]*/cgroup
    done
}

# Every process that the server made carries the mark in its environment: plugins inherit it, and what a task
# starts is told its allocation's folder. Process groups do not serve: tasks have sessions of their own.
marked() {
    {
        grep -lasF -e "CONSIGN_SERVER_FOLDER=$folder" -e "=$folder/" /proc/[0-9]*/environ 2>/dev/null
        contained
    } | sed 's|^/proc/\([0-9]*\)/.*|\1|'
}

signal() {
    [ -f "$pid_file" ] && kill "-$1" "$(cat "$pid_file")" 2>/dev/null
}

while read -r order; do
    case $order in
    start)
        (
            CONSIGN_SERVER_FOLDER=$folder "$@" </dev/null >>"$folder/server.log" 2>&1 &
            echo "$!" >"$pid_file"
            echo "started $!"
            wait "$!"
            status=$?
            rm -f "$pid_file"
            echo "exited $status"
        ) &
        ;;
    term) signal TERM ;;
    kill) signal KILL ;;
    esac
done

exec >/dev/null
signal TERM
tries=0
while [ -f "$pid_file" ] && [ "$tries" -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
tries=0
left=$(marked)
while [ -n "$left" ] && [ "$tries" -lt 50 ]; do
    # shellcheck disable=SC2086 # one argument for each process
    kill -KILL $left 2>/dev/null
    sleep 0.1
    tries=$((tries + 1))
    left=$(marked)
done
wait

mounts() {
    awk -v prefix="$folder/" 'index($2, prefix) == 1 { print $2 }' /proc/mounts 2>/dev/null | sort -r
}
mounts | while read -r mount; do
    umount -l "$mount" 2>/dev/null
done
if [ "$at_end" = remove ] && [ -z "$(mounts)" ]; then
    rm -rf "$folder"
fi
