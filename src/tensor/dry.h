// SPDX-License-Identifier: Apache-2.0
// dry.h - a device that computes nothing and counts everything: what a forward will take, before it runs.
// Idea: forwards reach memory and arithmetic through a device alone, so a device whose slots do nothing and
// whose memory is addresses without bytes gives the peak of any of them at any size in milliseconds.
// Easy to get wrong: it tells what goes through tensors. A kernel's own scratch and a library's workspace are
// not in it; bytes read back are zeros.
// Owns: nothing; the device lives as long as the process and is in no list.
#ifndef AT_TENSOR_DRY_H
#define AT_TENSOR_DRY_H

#include "tensor/device.h"

// `splits`: as the backend of the device that is stood in for has it. One thread at a time.
at_device *at_device_dry(bool splits);

#endif
