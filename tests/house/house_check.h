// SPDX-License-Identifier: Apache-2.0
// house_check.h - does a picture of the house model show what its caption asked for? Looks at RGB8 pixels only.
// Idea: objects are the strongly coloured regions; colour is their hue class, kind the best of ten silhouettes, place and
// size come from position and area. Written without a look at the trainer's drawing code: the two share names only.
// Owns nothing; no state; any thread.
#ifndef HOUSE_CHECK_H
#define HOUSE_CHECK_H

#include <stddef.h>
#include <stdint.h>

enum { HOUSE_MAX_THINGS = 16, HOUSE_MAX_FACTS = 8 };

typedef enum {
    HOUSE_HOUSE,
    HOUSE_TREE,
    HOUSE_BOAT,
    HOUSE_BALLOON,
    HOUSE_STAR,
    HOUSE_HEART,
    HOUSE_KITE,
    HOUSE_MUSHROOM,
    HOUSE_FISH,
    HOUSE_FLOWER,
    HOUSE_KINDS
} house_kind;

typedef enum {
    HOUSE_RED,
    HOUSE_ORANGE,
    HOUSE_YELLOW,
    HOUSE_GREEN,
    HOUSE_TURQUOISE,
    HOUSE_BLUE,
    HOUSE_PURPLE,
    HOUSE_PINK,
    HOUSE_COLOURS
} house_colour;

typedef enum { HOUSE_ANY_SIZE, HOUSE_SMALL, HOUSE_BIG, HOUSE_SIZES } house_size;

typedef enum {
    HOUSE_ANYWHERE,
    HOUSE_LEFT,
    HOUSE_MIDDLE,
    HOUSE_RIGHT,
    HOUSE_TOP,
    HOUSE_TOP_LEFT,
    HOUSE_TOP_RIGHT,
    HOUSE_BOTTOM,
    HOUSE_BOTTOM_LEFT,
    HOUSE_BOTTOM_RIGHT,
    HOUSE_PLACES
} house_place;

typedef enum {
    HOUSE_NO_REL,
    HOUSE_LEFT_OF,
    HOUSE_RIGHT_OF,
    HOUSE_ABOVE,
    HOUSE_BELOW,
    HOUSE_RELS
} house_rel;

// One asked object: what, and where; rel and of (index of another fact, -1 for none) say how it lies to another.
typedef struct {
    int32_t kind, colour, size, place, rel, of;
} house_fact;

// One object seen in a picture. x and y are the centre of its box, in 0..1; radius in pixels of a 256 picture; match is the
// overlap (intersection over union) with the silhouette of its kind; purity the share of its pixels that have its colour.
typedef struct {
    int32_t kind, colour;
    double x, y, radius, match, purity;
} house_thing;

// The names as prompts.json writes them ("" is HOUSE_ANY_SIZE, HOUSE_ANYWHERE, HOUSE_NO_REL); -1 if unknown.
int house_kind_of(const char *name);
int house_colour_of(const char *name);
int house_size_of(const char *name);
int house_place_of(const char *name);
int house_rel_of(const char *name);

// Find the objects, largest first. rgb is width * height * 3 bytes, rows from the top. Returns how many were written to out
// (room for HOUSE_MAX_THINGS), or -1 when out of memory.
int house_find(const uint8_t *rgb, int width, int height, house_thing *out);

// 1 if the picture shows every asked object, told facts and relations hold, and there is no other object; else 0.
// reason (size bytes, may be NULL) says the first thing that is wrong, or "ok".
int house_check(const uint8_t *rgb, int width, int height, const house_fact *facts, int count,
                char *reason, size_t size);

#endif
