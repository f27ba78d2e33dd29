#!/bin/bash
# A real Slurm of one node on this machine, for trying `wholebody slurm` and for its test. As root, on Debian:
#   apt-get install slurm-wlm munge
#   tools/start_slurm.sh start [DIR]      then: export SLURM_CONF=DIR/slurm.conf (default DIR: /tmp/wholebody-slurm)
#   tools/start_slurm.sh stop [DIR]
set -euo pipefail
action=${1:-start}
dir=${2:-/tmp/wholebody-slurm}
export SLURM_CONF=$dir/slurm.conf

stop() {
    for name in slurmd slurmctld munged; do
        if [ -s "$dir/$name.pid" ]; then kill "$(cat "$dir/$name.pid")" 2>/dev/null || true; fi
    done
    rm -f "$dir"/*.pid
}

start() {
    mkdir -p "$dir"/{state,spool,munge}
    host=$(hostname -s)
    cat > "$SLURM_CONF" <<CONF
ClusterName=wholebody
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=10
SchedulerParameters=batch_sched_delay=1,sched_interval=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    if [ ! -f "$dir/munge.key" ]; then
        head -c 1024 /dev/urandom > "$dir/munge.key"
    fi
    chmod 400 "$dir/munge.key"
    chmod 755 "$dir" "$dir/munge"
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    nice -n 10 slurmctld
    nice -n 10 slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%t 2>/dev/null | grep -q idle; then
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.5
    done
    echo "Slurm did not become idle within 30 s; see the logs in $dir" >&2
    exit 1
}

case $action in
    start) start ;;
    stop) stop ;;
    *) echo "usage: $0 start|stop [DIR]" >&2; exit 2 ;;
esac
