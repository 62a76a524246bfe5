# What is seen of Kiln on this kernel: a line `ok NAME` or `FAILED NAME` for each check, and behind a failed one
# what was there. `/mnt` has the programs, `/mnt/expect` how layers have to be mounted.
cd /root || exit 1
read -r expect </mnt/expect
PATH=/mnt/bin:$PATH
data=/var/lib/kiln

# check NAME COMMAND…: the command succeeds.
check() {
    name=$1
    shift
    if "$@" >/tmp/output 2>&1; then
        echo "ok $name"
    else
        echo "FAILED $name ($?): $*"
        sed 's/^/  | /' /tmp/output | tail -n 8
        sed 's/^/  log: /' /tmp/serve.log | tail -n 3
    fi
}
# says TEXT COMMAND…: the command succeeds and prints the text.
says() {
    text=$1
    shift
    "$@" >/tmp/said 2>&1
    code=$?
    cat /tmp/said
    [ $code = 0 ] && grep -qF -- "$text" /tmp/said
}
serve() {
    kiln serve --listen 127.0.0.1:0 --data-dir $data >/tmp/ready 2>>/tmp/serve.log &
    daemon=$!
    tries=0
    until [ -s /tmp/ready ] || [ $tries = 600 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    [ -s /tmp/ready ]
}
inside() {
    box=$1
    shift
    kiln exec --timeout 300s "$box" -- sh -c "$*"
}
same_init() {
    [ -s /tmp/inits ] && [ "$(cat /tmp/inits)" = "$(inits)" ]
}
nothing_runs() {
    [ -z "$(inits)" ]
}
# The processes that are the first of a PID namespace.
inits() {
    for process in /proc/[0-9]*; do
        if grep -qs '^NSpid:.*[[:space:]]1$' "$process/status"; then
            [ "$process" = /proc/1 ] || echo "$process $(cut -d' ' -f22 "$process/stat")"
        fi
    done
}
only_version_2() {
    [ -f /sys/fs/cgroup/cgroup.controllers ] && ! grep -q ' cgroup ' /proc/mounts
}
layers_are() {
    case $expect in
    erofs) says 'layers: EROFS' kiln doctor ;;
    *) says 'layers: plain directories' kiln doctor ;;
    esac
}

echo "note kernel $(uname -r)"
check control-groups-are-version-2 only_version_2
kiln doctor 2>&1 | sed 's/^/note doctor: /'
check doctor kiln doctor
check layers-as-expected layers_are
check serve serve
sed 's/^/note log: /' /tmp/serve.log | grep -i layers

mkdir -p tree/bin tree/etc tree/root tree/tmp
cp /bin/busybox tree/bin/
for name in $(busybox --list | grep -vx busybox); do ln -s busybox "tree/bin/$name"; done
echo root:x:0:0:root:/root:/bin/sh >tree/etc/passwd
tar -C tree -cf busybox.tar .
cat >box.json <<'J'
{"name": "box", "base_image": "/root/busybox.tar", "env": {"WORD": "clay"},
 "setup_commands": ["echo one > /etc/one; mkdir -p /opt/d; echo x > /opt/d/x; ln /etc/one /etc/two", "rm -r /opt/d; mkdir /opt/d; chmod 1777 /opt; id -u > /etc/who"]}
J
check build kiln build box.json
check build-again-from-the-cache says '"steps_total":4,"steps_cached":4' kiln build box.json --json
check run says 'one clay 0' kiln run box -- sh -c 'echo $(cat /etc/one) $WORD $(cat /etc/who)'
check run-removal-of-a-lower-directory says 'empty' kiln run box -- sh -c 'ls /opt/d | grep . || echo empty'
check create kiln create box --name one --memory 128 --pids 30 --disk 64
check exec says 'clay' inside one 'echo $WORD'
check write inside one 'echo fired > /root/mine; rm /etc/two; echo again > /etc/two'
check user-namespace says 'mapped' inside one 'while read -r inside outside many; do [ $inside = 0 ] && [ $outside -gt 65535 ] && echo mapped; done </proc/self/uid_map'
check disk-limit says 'No space left' inside one 'dd if=/dev/zero of=/root/big bs=1M count=200 2>&1; rm -f /root/big; true'
check disk-is-the-sandboxes-own says 'fits' inside one 'echo fits > /root/small; cat /root/small'
check memory-limit says 'bounded' inside one 'many=$(head -c 200000000 /dev/zero | tail -c 150000000 | wc -c); [ "$many" = 150000000 ] || echo bounded'
check network-address says 'inet 10.' inside one 'ip -4 addr show'
check own-network says 'mine' inside one '(nc -l -p 7070 -e echo mine >/dev/null 2>&1 &); own=$(ip -4 addr show | grep -o "inet 10[0-9.]*" | cut -d" " -f2); for i in $(seq 50); do nc -w 1 $own 7070 </dev/null | grep mine && exit 0; sleep 0.2; done; exit 1'
busybox nc -ll -p 7071 -e echo hello &
listener=$!
sleep 1
check service-of-the-host says 'hello' busybox nc -w 5 10.0.2.15 7071
check no-way-to-it says 'kept out' inside one 'nc -w 5 10.0.2.15 7071 </dev/null | grep hello || echo kept out'
kill $listener
check system-call-filter says 'refused' inside one 'unshare -U true || echo refused'
check process-limit says 'fork' inside one '(i=0; while [ $i -lt 60 ]; do sleep 1 & i=$((i+1)); done) 2>&1; exec sleep 3'
check lives-on says 'alive' inside one 'echo alive'
check stop kiln stop one
check start kiln start one
check disk-survives-a-stop says 'again' inside one 'cat /root/mine /etc/two'
check snapshot kiln snapshot one shot
check run-of-the-snapshot says 'fired' kiln run shot -- cat /root/mine
inits >/tmp/inits
kill -9 $daemon
wait $daemon 2>/dev/null
: >/tmp/ready
check serve-after-a-kill serve
check sandbox-is-adopted says 'fired' inside one 'cat /root/mine'
check sandbox-was-not-started-anew same_init
check runc says 'by runc' kiln run --driver runc box -- echo by runc
check crun says 'by crun' kiln run --driver crun box -- echo by crun
check fsck kiln fsck
check gc kiln gc
check df kiln df
check rm kiln rm -f one
check nothing-runs nothing_runs
kill $daemon
check daemon-ends-in-order wait $daemon

# The end-to-end tests, with their own words for how each ended.
echo "note tests begin after $(cut -d. -f1 /proc/uptime) s"
xargs -a /mnt/arguments /mnt/bin/e2e 2>&1
echo "note tests end after $(cut -d. -f1 /proc/uptime) s"
