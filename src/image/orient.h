// SPDX-License-Identifier: Apache-2.0
// orient.h - which way up a picture is, by its EXIF data, and turning it.
// Source: EXIF 2.32 (tag 0x0112 of the first directory), as Pillow's exif_transpose.
// Owns nothing: the picture keeps its pixels.
#ifndef AT_IMAGE_ORIENT_H
#define AT_IMAGE_ORIENT_H

#include "image/image.h"

// 1 to 8 from a TIFF block (without "Exif\0\0"); 1 if it says nothing that makes sense.
int at_exif_orientation(const uint8_t *exif, size_t n);
// Turn every frame so that orientation 1 fits. AT_ENOMEM with the label.
at_status at_picture_turn(const char *label, at_picture *p, int orientation);

#endif
