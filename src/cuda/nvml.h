// SPDX-License-Identifier: Apache-2.0
// nvml.h - the part of NVIDIA's management library that we ask: versions, links, load.
// Source: NVIDIA Management Library API reference (names, values and layouts are its binary interface).
// Owns: the library stays open for the life of the process.
#ifndef AT_CUDA_NVML_H
#define AT_CUDA_NVML_H

enum { NVML_SUCCESS = 0, NVML_INSUFFICIENT_SIZE = 7 };
enum { NVML_CLOCK_SM = 1 };
enum { // reasons for a lower clock, as bits
    NVML_POWER_CAP = 0x4,
    NVML_SLOWDOWN = 0x8,
    NVML_HEAT = 0x20,
    NVML_HARDWARE_HEAT = 0x40,
    NVML_POWER_BRAKE = 0x80
};
enum { NVML_SENSOR_GPU = 0, NVML_LINKS = 18, NVML_PROCESSES = 64 };

typedef struct at_nvml_memory {
    unsigned long long total, free, used;
} at_nvml_memory;
typedef struct at_nvml_rates {
    unsigned gpu, memory; // per cent of the last sample period
} at_nvml_rates;
typedef struct at_nvml_process {
    unsigned pid;
    unsigned long long bytes; // ~0: not known
    unsigned gpu_instance, compute_instance;
} at_nvml_process;

typedef struct at_nvml {
    int (*Init_v2)(void);
    int (*SystemGetDriverVersion)(char *text, unsigned bytes);
    int (*DeviceGetHandleByPciBusId_v2)(const char *bus, void **device);
    int (*DeviceGetMaxPcieLinkGeneration)(void *device, unsigned *generation);
    int (*DeviceGetMaxPcieLinkWidth)(void *device, unsigned *width);
    int (*DeviceGetNvLinkState)(void *device, unsigned link, int *active);
    int (*DeviceGetUtilizationRates)(void *device, at_nvml_rates *rates);
    int (*DeviceGetMemoryInfo)(void *device, at_nvml_memory *memory);
    int (*DeviceGetTemperature)(void *device, int sensor, unsigned *celsius);
    int (*DeviceGetPowerUsage)(void *device, unsigned *milliwatts);
    int (*DeviceGetEnforcedPowerLimit)(void *device, unsigned *milliwatts);
    int (*DeviceGetTotalEnergyConsumption)(void *device, unsigned long long *millijoules);
    int (*DeviceGetClockInfo)(void *device, int clock, unsigned *mhz);
    int (*DeviceGetMaxClockInfo)(void *device, int clock, unsigned *mhz);
    int (*DeviceGetCurrentClocksThrottleReasons)(void *device, unsigned long long *reasons);
    int (*DeviceGetComputeRunningProcesses_v3)(void *device, unsigned *count,
                                               at_nvml_process *list);
} at_nvml;

// Opened and initialised when first asked for; NULL where the driver brings none. Any thread.
const at_nvml *at_nvml_open(void);

#endif
