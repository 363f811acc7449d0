// SPDX-License-Identifier: Apache-2.0
// speeds.h - how fast the devices of one picture are against each other.
// Idea: devices of one description are alike. Where they differ, each kind's products are timed once and the rate is
// kept in the user's cache, as links are; ranks then take tokens, rows and forwards in proportion (par/shares.h).
// Owns nothing.
#ifndef AT_ENGINE_SPEEDS_H
#define AT_ENGINE_SPEEDS_H

#include "par/shares.h"
#include "tensor/device.h"

// "3,2" for n ranks; AT_EUSAGE says what is wrong.
at_status at_speeds_parse(const char *text, int n, uint8_t out[AT_SHARE_RANKS]);
// Zeros: all alike, as far as is known. While nothing else is under way.
void at_speeds_measure(at_device *const *devices, int n, uint8_t out[AT_SHARE_RANKS]);

#endif
