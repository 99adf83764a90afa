"""Builds the plans of pickled operations for a GPU that is not here.

Run as a script, with a stub of libcuda on LD_LIBRARY_PATH. Prints a line of JSON.
"""

import ctypes
import json
import pickle
import re
import sys
import time
from pathlib import Path

import cudnn

from chainer_revive.cudnn import plans

COMMON = {
    "maxGridSize": [2147483647, 65535, 65535],
    "maxBlockSize": [1024, 1024, 64],
    "regsPerBlock": 65536,
    "maxRegistersPerSM": 65536,
    "warpSize": 32,
    "maxSharedMemoryPerBlock": 49152,
    "reservedSharedMemoryPerBlock": 1024,
    "maxCtasPerSM": 32,
    "maxThreadsPerBlock": 1024,
    "maxThreadsPerSM": 2048,
    "supportCoopLaunch": 1,
    "memoryBusWidth": 5120,
    "driverVer": 13000,
    "pciDeviceId": 0,
    "isTccDriver": 0,
    "cudaDeviceId": 0,
    "oversizedSharedMemoryPerBlock": 0,
}
GPUS = {
    "sm_80": {
        "deviceName": "NVIDIA A100-SXM4-80GB",
        "deviceVer": 800,
        "multiProcessorCount": 108,
        "maxSharedMemoryPerBlockOptin": 166912,
        "totalGlobalMem": 85197979648,
        "smClockRateKHz": 1410000,
        "memClockRateKHz": 1593000,
        "l2CacheSize": 41943040,
    },
    "sm_90": {
        "deviceName": "NVIDIA H100 80GB HBM3",
        "deviceVer": 900,
        "multiProcessorCount": 132,
        "maxSharedMemoryPerBlockOptin": 232448,
        "totalGlobalMem": 85520809984,
        "smClockRateKHz": 1980000,
        "memClockRateKHz": 2619000,
        "l2CacheSize": 52428800,
    },
}


def target(gpu):
    """A target without a handle."""
    properties = json.dumps({**COMMON, **GPUS[gpu]}).encode()
    return plans.Target(gpu, None, cudnn.create_device_properties(properties))


def engine(graph):
    """What cuDNN has chosen."""
    return re.search(rb'"engineId":[^}]*', bytes(graph.serialize()))[0].decode()


def handed_over(operation, graph):
    """What the frontend gives to cuDNN of array k at address 16 k, and of the rest."""
    calls = []

    def execute(graph, address, n, workspace, handle, *plan):
        addresses = (ctypes.c_int64 * n).from_address(address)
        calls.append([list(addresses), workspace, handle])

    cudnn._pybind_module.backend_graph._execute_with_raw_ptrs = execute
    n = len(operation.inputs) + len(operation.outputs)
    handle = cudnn.Handle(7, ordinal=0, stream=0)
    graph.execute({uid: 16 * uid for uid in range(1, n + 1)}, 512, handle=handle)
    (call,) = calls
    return call


if __name__ == "__main__":
    gpu, path = sys.argv[1:]
    started = time.perf_counter()
    where, result = target(gpu), []
    for operation in pickle.loads(Path(path).read_bytes()):
        plan = plans.get(operation, where)
        result.append(
            plan
            and {
                "workspace": plan.workspace,
                "engine": engine(plan.graph),
                "call": handed_over(operation, plan.graph),
            }
        )
    seconds = time.perf_counter() - started
    print(json.dumps({"plans": result, "seconds": seconds}))
