# Node-local staging, to be sourced on the first node of a Slurm allocation: nodes by the hundred that import Python from the
# shared file system wait for it, and for each other.
#
#   source envs/stage.sh [results/<study>/training/data/manifest.json]     in a profile's launcher: $data
#
# Copies the environment's packages to every node, and the token shards if their manifest is named. Then imports come from
# there (PYTHONPATH), while the commands are those of the environment as ever, and GEMSTONES_SHARDS names the shards, for the
# setting `training.shards: $GEMSTONES_SHARDS`. Where something fails, one line says so and the shared files are used.
#
# GEMSTONES_STAGE   folder on every node, by default /mnt/bb/$USER (on Frontier, with -C nvme)
# GEMSTONES_PACKED  folder in which the packages are packed once, by default results/environment; old ones may be removed
# GEMSTONES_PYTHON  of the environment, by default .venv/bin/python or else python

_stage_nodes=${nodes:-${SLURM_JOB_NUM_NODES:-}} # the first is what training jobs are told

_stage_tasks() { # one a node
  srun --nodes="$_stage_nodes" --ntasks="$_stage_nodes" --ntasks-per-node=1 --overlap bash -euc "$@"
}

_stage_packages() {
  local python packages key packed
  python=${GEMSTONES_PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || command -v python)} || return 1
  packages=$(PYTHONPATH='' "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || return 1
  # Installing, updating or removing a package changes the name or the time of a folder with its version.
  key=$(cd "$packages" && stat -c '%n %Y' ./*.dist-info | sha256sum | cut -c1-12) || return 1
  packed=${GEMSTONES_PACKED:-results/environment}/$key.tar
  if [ ! -e "$packed" ]; then
    mkdir -p "${packed%/*}" && tar -cf "$packed.$SLURM_JOB_ID" -C "$packages" . &&
      mv "$packed.$SLURM_JOB_ID" "$packed" || return 1
  fi
  # The lock is for several jobs on a node; what is there in whole is not unpacked again.
  sbcast --force "$packed" "$1/$key.$SLURM_JOB_ID.tar" &&
    _stage_tasks 'flock "$0/lock" bash -euc "
      [ -e $1/ready ] || { mkdir -p $1 && tar -xf $2 -C $1 && touch $1/ready; }" && rm -f "$2"' \
      "$1" "$1/$key" "$1/$key.$SLURM_JOB_ID.tar" || return 1
  export PYTHONPATH="$1/$key${PYTHONPATH:+:$PYTHONPATH}"
}

_stage_shards() {
  local shard
  for shard in "$2"/*.bin; do
    sbcast --force "$shard" "$1/shards/${shard##*/}" || return 1
  done
  export GEMSTONES_SHARDS=$1/shards
}

_stage() {
  local folder=${GEMSTONES_STAGE:-/mnt/bb/${USER:-$(id -un)}} shards=${1:+$(dirname "${1:-}")/shards}
  [ -z "$shards" ] || export GEMSTONES_SHARDS=$shards
  if [ -z "$_stage_nodes" ] || ! _stage_tasks 'mkdir -p "$0/shards"' "$folder"; then
    echo "stage: $folder cannot be made on every node of an allocation; going on with the shared file system" >&2
    return 0
  fi
  _stage_packages "$folder" || echo "stage: the packages were not staged; going on with those of the environment" >&2
  [ -z "$shards" ] || _stage_shards "$folder" "$shards" ||
    echo "stage: the shards were not staged; going on with $shards" >&2
}

_stage "$@"
