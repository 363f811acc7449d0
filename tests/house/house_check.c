// SPDX-License-Identifier: Apache-2.0
// house_check.c - see house_check.h.
// Steps: strongly coloured pixels -> regions (joined over gaps of a few pixels, holes filled) -> hue class by majority ->
// kind by overlap with silhouettes of equal area and centre of mass, a few turns and the mirror image tried.
#include "house_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

enum {
    GRID = 64, // silhouettes are compared on GRID x GRID cells ...
    JOIN = 3,  // parts of an object at most 2 * JOIN pixels apart belong together
    TURNS = 5,
};
static const double grid_half =
    1.05; // ... over -1.05..1.05 in units of the square root of the area
static const double strong =
    90.0; // max - min of an object's pixel, of 255; backgrounds stay below 77
static const double least_area = 0.0030; // of the picture; the smallest objects cover 0.008

static const char *const kind_names[HOUSE_KINDS] = {
    "house", "tree", "boat", "balloon", "star", "heart", "kite", "mushroom", "fish", "flower"};
static const char *const colour_names[HOUSE_COLOURS] = {"red",       "orange", "yellow", "green",
                                                        "turquoise", "blue",   "purple", "pink"};
static const char *const size_names[HOUSE_SIZES] = {"", "small", "big"};
static const char *const place_names[HOUSE_PLACES] = {
    "",         "left",      "middle", "right",       "top",
    "top left", "top right", "bottom", "bottom left", "bottom right"};
static const char *const rel_names[HOUSE_RELS] = {"", "left of", "right of", "above", "below"};

static int name_index(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

int house_kind_of(const char *name)
{
    return name_index(kind_names, HOUSE_KINDS, name);
}
int house_colour_of(const char *name)
{
    return name_index(colour_names, HOUSE_COLOURS, name);
}
int house_size_of(const char *name)
{
    return name_index(size_names, HOUSE_SIZES, name);
}
int house_place_of(const char *name)
{
    return name_index(place_names, HOUSE_PLACES, name);
}
int house_rel_of(const char *name)
{
    return name_index(rel_names, HOUSE_RELS, name);
}

// ---- silhouettes: inside or not, in a frame of our own with y down and the whole object about -1..1 ----

static int in_poly(const double (*p)[2], int n, double x, double y)
{
    int in = 0;

    for (int i = 0, j = n - 1; i < n; j = i++)
        if ((p[i][1] > y) != (p[j][1] > y) &&
            x < (p[j][0] - p[i][0]) * (y - p[i][1]) / (p[j][1] - p[i][1]) + p[i][0])
            in = !in;
    return in;
}

static int in_oval(double x, double y, double cx, double cy, double a, double b)
{
    double u = (x - cx) / a, v = (y - cy) / b;

    return u * u + v * v < 1.0;
}

static int in_tri(double x, double y, double ax, double ay, double bx, double by, double cx,
                  double cy)
{
    const double p[3][2] = {{ax, ay}, {bx, by}, {cx, cy}};

    return in_poly(p, 3, x, y);
}

static int in_star(double x, double y)
{
    double a = atan2(x, -y), r = hypot(x, y), step = PI / 5.0;
    double f = fabs(remainder(a, 2.0 * step)), tip_x = 0.45 * sin(step), tip_y = 0.45 * cos(step);

    // inside the line from a tip (0, 1) to the notch beside it
    double px = r * sin(f), py = r * cos(f);
    return px * (1.0 - tip_y) + py * tip_x < tip_x;
}

static int in_kind(int kind, double x, double y)
{
    static const double hull[4][2] = {{-1.0, 0.35}, {1.0, 0.35}, {0.64, 0.86}, {-0.64, 0.86}};
    static const double taper[4][2] = {{-0.68, -0.08}, {0.68, -0.08}, {0.2, 0.57}, {-0.2, 0.57}};
    static const double diamond[4][2] = {{0, -1.0}, {0.7, -0.26}, {0, 0.56}, {-0.7, -0.26}};
    static const double fins[4][2] = {{0.4, 0}, {1.0, -0.5}, {0.88, 0}, {1.0, 0.5}};

    switch (kind) {
    case HOUSE_HOUSE:
        if (fabs(x) < 0.14 && y > 0.38) return 0;
        return in_tri(x, y, 0, -0.95, 1.0, 0, -1.0, 0) ||
               (fabs(x) < 0.76 && y > -0.05 && y < 0.9) ||
               (x > 0.4 && x < 0.62 && y > -0.85 && y < 0);
    case HOUSE_TREE:
        return in_tri(x, y, 0, -1.0, 0.5, -0.25, -0.5, -0.25) ||
               in_tri(x, y, 0, -0.65, 0.67, 0.22, -0.67, 0.22) ||
               in_tri(x, y, 0, -0.25, 0.85, 0.73, -0.85, 0.73);
    case HOUSE_BOAT:
        return in_poly(hull, 4, x, y) || in_tri(x, y, 0.05, -0.95, 0.05, 0.27, 0.85, 0.27) ||
               in_tri(x, y, -0.05, -0.73, -0.05, 0.27, -0.73, 0.27) ||
               (fabs(x) < 0.06 && y > -0.75 && y < 0.4) ||
               (x > -0.73 && x < 0.85 && y > 0.26 && y < 0.36);
    case HOUSE_BALLOON: return in_oval(x, y, 0, -0.28, 0.72, 0.72) || in_poly(taper, 4, x, y);
    case HOUSE_STAR: return in_star(x, y);
    case HOUSE_HEART:
        return in_oval(x, y, 0.375, -0.4, 0.53, 0.53) || in_oval(x, y, -0.375, -0.4, 0.53, 0.53) ||
               (y > -0.42 && fabs(x) + y < 0.72 && fabs(x) < 0.9);
    case HOUSE_KITE: return in_poly(diamond, 4, x, y);
    case HOUSE_MUSHROOM: return y < 0.12 && in_oval(x, y, 0, 0.08, 0.99, 1.0);
    case HOUSE_FISH:
        return in_oval(x, y, -0.14, 0, 0.8, 0.5) || in_poly(fins, 4, x, y) ||
               in_tri(x, y, -0.4, -0.38, 0.24, -0.76, 0.36, -0.32);
    case HOUSE_FLOWER:
        for (int i = 0; i < 6; i++)
            if (in_oval(x, y, 0.42 * sin(PI * i / 3), -0.42 * cos(PI * i / 3), 0.29, 0.29))
                return 1;
        return in_oval(x, y, 0, 0, 0.42, 0.42);
    default: return 0;
    }
}

// Area and centre of mass of a silhouette, by counting.
static void measure_kind(int kind, double *area, double *mx, double *my)
{
    enum { N = 120 };
    double n = 0, sx = 0, sy = 0, h = 2.2 / N;

    for (int j = 0; j < N; j++)
        for (int i = 0; i < N; i++) {
            double x = -1.1 + (i + 0.5) * h, y = -1.1 + (j + 0.5) * h;
            if (in_kind(kind, x, y)) n++, sx += x, sy += y;
        }
    *area = n * h * h;
    *mx = sx / n;
    *my = sy / n;
}

// ---- regions ----

typedef struct {
    int w, h, regions;
    uint8_t *object; // 1 where strongly coloured
    uint8_t *wide;   // object, grown by JOIN
    int *label;      // region of wide, 1.. ; 0 none
    int *stack;
    uint8_t *fill; // the region in hand, holes filled
} field;

static void field_free(field *f)
{
    free(f->object);
    free(f->wide);
    free(f->label);
    free(f->stack);
    free(f->fill);
}

static int field_alloc(field *f, int w, int h)
{
    size_t n = (size_t)w * (size_t)h;

    *f = (field){.w = w, .h = h};
    f->object = calloc(n, 1);
    f->wide = calloc(n, 1);
    f->label = calloc(n, sizeof *f->label);
    f->stack = calloc(n, sizeof *f->stack);
    f->fill = calloc(n, 1);
    return f->object && f->wide && f->label && f->stack && f->fill;
}

static double chroma_of(const uint8_t *p)
{
    int hi = p[0] > p[1] ? p[0] : p[1], lo = p[0] < p[1] ? p[0] : p[1];

    if (p[2] > hi) hi = p[2];
    if (p[2] < lo) lo = p[2];
    return hi - lo;
}

static int colour_of(const uint8_t *p)
{
    static const double upto[] = {13, 38, 70, 160, 198, 247, 296, 344};
    double r = p[0], g = p[1], b = p[2], c = chroma_of(p), hue;

    if (r >= g && r >= b)
        hue = 60.0 * (g - b) / c;
    else if (g >= b)
        hue = 60.0 * (b - r) / c + 120.0;
    else
        hue = 60.0 * (r - g) / c + 240.0;
    if (hue < 0) hue += 360.0;
    for (int i = 0; i < HOUSE_COLOURS; i++)
        if (hue < upto[i]) return i;
    return HOUSE_RED;
}

static void mark(field *f, const uint8_t *rgb)
{
    int join = (JOIN * f->w + 128) / 256;

    for (int i = 0; i < f->w * f->h; i++)
        f->object[i] = chroma_of(rgb + 3 * i) >= strong;
    for (int y = 0; y < f->h; y++)
        for (int x = 0; x < f->w; x++) {
            if (!f->object[y * f->w + x]) continue;
            for (int v = y - join < 0 ? 0 : y - join; v <= y + join && v < f->h; v++)
                for (int u = x - join < 0 ? 0 : x - join; u <= x + join && u < f->w; u++)
                    f->wide[v * f->w + u] = 1;
        }
}

static void flood(field *f, int start, int name)
{
    int top = 0;

    f->stack[top++] = start;
    f->label[start] = name;
    while (top) {
        int i = f->stack[--top], x = i % f->w, y = i / f->w;
        const int near[4] = {x > 0 ? i - 1 : -1, x + 1 < f->w ? i + 1 : -1, y > 0 ? i - f->w : -1,
                             y + 1 < f->h ? i + f->w : -1};
        for (int k = 0; k < 4; k++)
            if (near[k] >= 0 && f->wide[near[k]] && !f->label[near[k]]) {
                f->label[near[k]] = name;
                f->stack[top++] = near[k];
            }
    }
}

// Is the whole neighbourhood in the grown region? (So growing and this together close narrow gaps.)
static int inside_wide(const field *f, int x, int y, int name)
{
    int join = (JOIN * f->w + 128) / 256;

    if (f->label[y * f->w + x] != name) return 0;
    for (int v = y - join < 0 ? 0 : y - join; v <= y + join && v < f->h; v++)
        for (int u = x - join < 0 ? 0 : x - join; u <= x + join && u < f->w; u++)
            if (f->label[v * f->w + u] != name) return 0;
    return 1;
}

// fill = 1 for the region's object pixels, gaps between its parts, and everything they enclose.
static void fill_region(field *f, int name)
{
    int n = f->w * f->h, top = 0;

    for (int i = 0; i < n; i++)
        f->fill[i] = inside_wide(f, i % f->w, i / f->w, name) ? 1 : 2;
    for (int i = 0; i < n; i++) { // 2 that reach the border become 0
        int x = i % f->w, y = i / f->w;
        if ((x && y && x + 1 < f->w && y + 1 < f->h) || f->fill[i] != 2) continue;
        f->fill[i] = 0;
        f->stack[top++] = i;
    }
    while (top) {
        int i = f->stack[--top], x = i % f->w, y = i / f->w;
        const int near[4] = {x > 0 ? i - 1 : -1, x + 1 < f->w ? i + 1 : -1, y > 0 ? i - f->w : -1,
                             y + 1 < f->h ? i + f->w : -1};
        for (int k = 0; k < 4; k++)
            if (near[k] >= 0 && f->fill[near[k]] == 2) {
                f->fill[near[k]] = 0;
                f->stack[top++] = near[k];
            }
    }
    for (int i = 0; i < n; i++)
        f->fill[i] = f->fill[i] != 0;
}

// ---- what is it ----

static double overlap(const uint8_t *grid, int kind, double turn, int mirror, double area,
                      double mx, double my)
{
    int both = 0, either = 0;
    double s = sqrt(area), c = cos(turn), d = sin(turn);

    for (int j = 0; j < GRID; j++)
        for (int i = 0; i < GRID; i++) {
            double x = ((i + 0.5) / GRID * 2 - 1) * grid_half * s,
                   y = ((j + 0.5) / GRID * 2 - 1) * grid_half * s;
            double u = x * c + y * d, v = y * c - x * d;
            int a = grid[j * GRID + i], b = in_kind(kind, (mirror ? -u : u) + mx, v + my);
            both += a && b;
            either += a || b;
        }
    return either ? (double)both / either : 0;
}

static void recognise(field *f, double area, double mx, double my, house_thing *t)
{
    uint8_t grid[GRID * GRID];
    double s = sqrt(area), best_area = 1;

    for (int j = 0; j < GRID; j++)
        for (int i = 0; i < GRID; i++) {
            int x = (int)floor(mx + ((i + 0.5) / GRID * 2 - 1) * grid_half * s + 0.5);
            int y = (int)floor(my + ((j + 0.5) / GRID * 2 - 1) * grid_half * s + 0.5);
            grid[j * GRID + i] = x >= 0 && y >= 0 && x < f->w && y < f->h && f->fill[y * f->w + x];
        }
    t->match = 0;
    for (int kind = 0; kind < HOUSE_KINDS; kind++) {
        double ka, kx, ky;
        measure_kind(kind, &ka, &kx, &ky);
        for (int k = 0; k < TURNS * 2; k++) {
            double o = overlap(grid, kind, (k / 2 - TURNS / 2) * 0.1, k % 2, ka, kx, ky);
            if (o > t->match) t->match = o, t->kind = kind, best_area = ka;
        }
    }
    t->radius = sqrt(area / best_area) * 256.0 / f->w;
}

static int describe(field *f, const uint8_t *rgb, int name, house_thing *t)
{
    int votes[HOUSE_COLOURS] = {0}, pixels = 0, x0 = f->w, x1 = -1, y0 = f->h, y1 = -1;
    double n = 0, sx = 0, sy = 0;

    fill_region(f, name);
    for (int y = 0; y < f->h; y++)
        for (int x = 0; x < f->w; x++) {
            int i = y * f->w + x;
            if (!f->fill[i]) continue;
            n++, sx += x, sy += y;
            if (x < x0) x0 = x;
            if (x > x1) x1 = x;
            if (y < y0) y0 = y;
            if (y > y1) y1 = y;
            if (f->object[i] && f->label[i] == name) votes[colour_of(rgb + 3 * i)]++, pixels++;
        }
    if (n < least_area * f->w * f->h) return 0;
    t->colour = 0;
    for (int c = 1; c < HOUSE_COLOURS; c++)
        if (votes[c] > votes[t->colour]) t->colour = c;
    t->purity = (double)votes[t->colour] / pixels;
    t->x = (x0 + x1 + 1) / 2.0 / f->w;
    t->y = (y0 + y1 + 1) / 2.0 / f->h;
    recognise(f, n, sx / n, sy / n, t);
    return 1;
}

int house_find(const uint8_t *rgb, int width, int height, house_thing *out)
{
    field f;
    int found = 0;

    if (!field_alloc(&f, width, height)) {
        field_free(&f);
        return -1;
    }
    mark(&f, rgb);
    for (int i = 0; i < width * height; i++)
        if (f.wide[i] && !f.label[i]) flood(&f, i, ++f.regions);
    for (int k = 1; k <= f.regions && found < HOUSE_MAX_THINGS; k++) {
        house_thing t = {0};
        if (!describe(&f, rgb, k, &t)) continue;
        int at = found++;
        for (; at > 0 && out[at - 1].radius < t.radius; at--)
            out[at] = out[at - 1];
        out[at] = t;
    }
    field_free(&f);
    return found;
}

// ---- is it what was asked ----

static int in_place(int place, const house_thing *t)
{
    int left = t->x < 0.40;
    int right = t->x > 0.60;
    int middle = t->x > 0.37 && t->x < 0.63;
    int top = t->y < 0.42;
    int bottom = t->y > 0.58;

    switch (place) {
    case HOUSE_ANYWHERE: return 1;
    case HOUSE_LEFT: return left;
    case HOUSE_MIDDLE: return middle;
    case HOUSE_RIGHT: return right;
    case HOUSE_TOP: return top && middle;
    case HOUSE_TOP_LEFT: return top && left;
    case HOUSE_TOP_RIGHT: return top && right;
    case HOUSE_BOTTOM: return bottom && middle;
    case HOUSE_BOTTOM_LEFT: return bottom && left;
    case HOUSE_BOTTOM_RIGHT: return bottom && right;
    default: return 0;
    }
}

static int in_relation(int rel, const house_thing *a, const house_thing *b)
{
    switch (rel) {
    case HOUSE_NO_REL: return 1;
    case HOUSE_LEFT_OF: return a->x < b->x - 0.08;
    case HOUSE_RIGHT_OF: return a->x > b->x + 0.08;
    case HOUSE_ABOVE: return a->y < b->y - 0.12;
    case HOUSE_BELOW: return a->y > b->y + 0.12;
    default: return 0;
    }
}

// NULL if thing is what fact asks (relations aside), else what is wrong with it.
static const char *wrong(const house_fact *q, const house_thing *t)
{
    if (t->match < 0.70) return "shape is like none";
    if (t->purity < 0.80) return "colour is mixed";
    if (t->kind != q->kind) return "kind";
    if (t->colour != q->colour) return "colour";
    if (!in_place(q->place, t)) return "place";
    if (q->size == HOUSE_SMALL && t->radius > 36.0) return "not small";
    if (q->size == HOUSE_BIG && t->radius < 37.0) return "not big";
    return NULL;
}

// Give fact k and later ones each a thing of its own such that everything holds.
static int assign(const house_fact *q, int count, const house_thing *t, int things, int *of, int k)
{
    if (k == count) {
        for (int i = 0; i < count; i++)
            if (q[i].rel && q[i].of >= 0 && q[i].of < count &&
                !in_relation(q[i].rel, &t[of[i]], &t[of[q[i].of]]))
                return 0;
        return 1;
    }
    for (int j = 0; j < things; j++) {
        int taken = 0;
        for (int i = 0; i < k; i++)
            taken |= of[i] == j;
        if (taken || wrong(&q[k], &t[j])) continue;
        of[k] = j;
        if (assign(q, count, t, things, of, k + 1)) return 1;
    }
    return 0;
}

static void explain(const house_fact *q, int count, const house_thing *t, int things, char *reason,
                    size_t size)
{
    for (int i = 0; i < count; i++) {
        const char *why = "missing";
        int near = -1, hits = 0;
        for (int j = 0; j < things; j++) {
            const char *w = wrong(&q[i], &t[j]);
            int score = 1 + 2 * (t[j].kind == q[i].kind) + 2 * (t[j].colour == q[i].colour) +
                        in_place(q[i].place, &t[j]);
            if (!w)
                near = -1, why = NULL, j = things;
            else if (score > hits)
                hits = score, near = j, why = w;
        }
        if (!why) continue;
        if (near < 0)
            snprintf(reason, size, "%s %s: missing", colour_names[q[i].colour],
                     kind_names[q[i].kind]);
        else
            snprintf(reason, size,
                     "%s %s: %s (nearest: %s %s at %.2f %.2f radius %.0f match %.2f purity %.2f)",
                     colour_names[q[i].colour], kind_names[q[i].kind], why,
                     colour_names[t[near].colour], kind_names[t[near].kind], t[near].x, t[near].y,
                     t[near].radius, t[near].match, t[near].purity);
        return;
    }
    snprintf(reason, size, "objects are right one by one, but not together (relation)");
}

int house_check(const uint8_t *rgb, int width, int height, const house_fact *facts, int count,
                char *reason, size_t size)
{
    house_thing things[HOUSE_MAX_THINGS] = {0};
    int of[HOUSE_MAX_FACTS] = {0}, n = house_find(rgb, width, height, things);
    char none[1];

    if (!reason || !size) reason = none, size = sizeof none;
    if (n < 0 || count > HOUSE_MAX_FACTS) {
        snprintf(reason, size, "%s", n < 0 ? "no memory" : "too many facts");
        return 0;
    }
    if (!assign(facts, count, things, n, of, 0)) {
        explain(facts, count, things, n, reason, size);
        return 0;
    }
    if (n > count) {
        snprintf(reason, size, "%d objects, asked for %d", n, count);
        return 0;
    }
    snprintf(reason, size, "ok");
    return 1;
}
