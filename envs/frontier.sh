# The environment of training jobs on OLCF Frontier, for bash; sourced on a job's first node before srun.
# Values by the facility's documentation and the authors' launcher.

if type module > /dev/null 2>&1; then
  set +u # modules use variables that are not set
  module load PrgEnv-gnu rocm craype-accel-amd-gfx90a rccl-net-plugin
  set -u
fi

# RCCL over the four Slingshot interfaces of a node.
export NCCL_SOCKET_IFNAME=hsn0,hsn1,hsn2,hsn3
export NCCL_CROSS_NIC=1
export NCCL_NET_GDR_LEVEL=PHB
export HSA_FORCE_FINE_GRAIN_PCIE=1
export FI_MR_CACHE_MONITOR=kdreg2
export FI_CXI_DISABLE_HOST_REGISTER=1
export FI_CXI_DEFAULT_CQ_SIZE=131072
export FI_CXI_DEFAULT_TX_SIZE=2048
export FI_CXI_RX_MATCH_MODE=hybrid
export FI_CXI_RDZV_PROTO=alt_read # with sbatch --network=disable_rdzv_get

# Caches of compiled kernels: each node's own, since the shared file system is slow for many small files.
export MIOPEN_USER_DB_PATH="/tmp/$(id -un)-miopen"
export MIOPEN_CUSTOM_CACHE_DIR="$MIOPEN_USER_DB_PATH"

export OMP_NUM_THREADS=7
