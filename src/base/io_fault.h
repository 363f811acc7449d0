// SPDX-License-Identifier: Apache-2.0
// io_fault.h - private to base: the switch that makes the n-th read or write fail.
#ifndef AT_BASE_IO_FAULT_H
#define AT_BASE_IO_FAULT_H

#include <stdbool.h>

// True if this read, write, sync or rename must pretend to fail (errno is set to EIO).
bool at_io_fault_now(void);

#endif
