# SPDX-License-Identifier: Apache-2.0
# draw.py - paints batches of scenes as paper-cut pictures, 256 x 256, anti-aliased, with torch on any device.
# Idea: everything is a signed distance in pixels; a layer is painted with alpha = clamp(0.5 - distance). Backgrounds keep
# a chroma (max - min of RGB) below 0.30, an object's main colour above 0.42: so colour can be measured afterwards.
# Objects are drawn in a window of 144 pixels only. Returns uint8-range floats 0..1, [B, 3, 256, 256].
import math

import torch

from world import COLOURS, KINDS

PX, WIN = 256, 144
RGB = {"red": (212, 36, 42), "orange": (244, 124, 28), "yellow": (250, 210, 44), "green": (22, 164, 62),
       "turquoise": (20, 180, 178), "blue": (38, 98, 222), "purple": (124, 50, 200), "pink": (242, 92, 166)}
CREAM, BROWN, DARK = (252, 247, 236), (112, 84, 70), (52, 46, 56)


def _rgb(c, like):
    return torch.tensor(c, dtype=torch.float32, device=like.device) / 255.0


def polygon(u, v, points):
    """Signed distance to a polygon (Quilez), u and v of any shape."""
    n = len(points)
    d = (u - points[0][0]) ** 2 + (v - points[0][1]) ** 2
    s = torch.ones_like(u)
    for i in range(n):
        ax, ay = points[i]
        bx, by = points[i - 1]
        ex, ey = bx - ax, by - ay
        wx, wy = u - ax, v - ay
        t = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        d = torch.minimum(d, (wx - ex * t) ** 2 + (wy - ey * t) ** 2)
        c1, c2, c3 = v >= ay, v < by, ex * wy > ey * wx
        flip = (c1 & c2 & c3) | (~c1 & ~c2 & ~c3)
        s = torch.where(flip, -s, s)
    return s * d.clamp_min(1e-12).sqrt()


def circle(u, v, x, y, r):
    return ((u - x) ** 2 + (v - y) ** 2).clamp_min(1e-12).sqrt() - r


def ellipse(u, v, x, y, a, b):
    k0 = (((u - x) / a) ** 2 + ((v - y) / b) ** 2).clamp_min(1e-12).sqrt()
    k1 = (((u - x) / (a * a)) ** 2 + ((v - y) / (b * b)) ** 2).clamp_min(1e-12).sqrt()
    return k0 * (k0 - 1) / k1


def box(u, v, x0, y0, x1, y1, rad=0.0):
    qx = (u - (x0 + x1) / 2).abs() - (x1 - x0) / 2 + rad
    qy = (v - (y0 + y1) / 2).abs() - (y1 - y0) / 2 + rad
    return (qx.clamp_min(0) ** 2 + qy.clamp_min(0) ** 2).sqrt() + torch.maximum(qx, qy).clamp_max(0) - rad


def union(*d):
    out = d[0]
    for x in d[1:]:
        out = torch.minimum(out, x)
    return out


def heart(u, v):
    x, y = u.abs() / 1.5, (0.72 - v) / 1.5
    far = ((x - 0.25) ** 2 + (y - 0.75) ** 2).sqrt() - math.sqrt(2) / 4
    k = 0.5 * (x + y).clamp_min(0)
    near = torch.minimum(x ** 2 + (y - 1) ** 2, (x - k) ** 2 + (y - k) ** 2).clamp_min(1e-12).sqrt() * torch.sign(x - y)
    return torch.where(x + y > 1, far, near) * 1.5


# Each kind returns [(distance, role)] painted in order. Roles: number = main colour times that factor (above 1: towards
# white), or "cream", "brown", "dark", "leaf". The outline is the union of them all.
def draw_house(u, v):
    roof = polygon(u, v, [(-0.98, -0.04), (0, -0.92), (0.98, -0.04)]) - 0.03
    pane = union(box(u, v, -0.5, 0.16, -0.2, 0.46, 0.03), box(u, v, 0.2, 0.16, 0.5, 0.46, 0.03))
    bars = union(box(u, v, -0.37, 0.16, -0.33, 0.46), box(u, v, 0.33, 0.16, 0.37, 0.46),
                 box(u, v, -0.5, 0.29, -0.2, 0.33), box(u, v, 0.2, 0.29, 0.5, 0.33))
    return [(box(u, v, 0.4, -0.84, 0.62, -0.2, 0.02), 0.84), (box(u, v, -0.76, -0.06, 0.76, 0.9, 0.03), 1.0), (roof, 0.82),
            (pane, "cream"), (torch.maximum(bars, pane), "brown"),
            (union(box(u, v, -0.14, 0.5, 0.14, 0.9), circle(u, v, 0, 0.5, 0.14)), "cream"),
            (circle(u, v, 0, -0.4, 0.13), "cream")]


def draw_tree(u, v):
    tiers = [polygon(u, v, [(0, -0.22), (0.82, 0.7), (-0.82, 0.7)]) - 0.03,
             polygon(u, v, [(0, -0.62), (0.64, 0.2), (-0.64, 0.2)]) - 0.03,
             polygon(u, v, [(0, -0.98), (0.46, -0.28), (-0.46, -0.28)]) - 0.03]
    out = [(box(u, v, -0.12, 0.6, 0.12, 1.0), "brown"), (tiers[0], 1.0)]
    for i in (1, 2):                       # each tier throws a shade on the one below
        out += [(torch.maximum(tiers[i] - 0.07, union(*tiers[:i])), 0.8), (tiers[i], 1.0 + 0.06 * i)]
    return out


def draw_boat(u, v):
    hull = polygon(u, v, [(-0.98, 0.36), (0.98, 0.36), (0.62, 0.84), (-0.62, 0.84)]) - 0.02
    return [(box(u, v, -0.035, -1.0, 0.035, 0.4), "brown"), (hull, 0.84),
            (torch.maximum(hull, box(u, v, -1, 0.47, 1, 0.56)), "cream"),
            (polygon(u, v, [(0.05, -0.94), (0.05, 0.27), (0.84, 0.27)]), 1.0),
            (polygon(u, v, [(-0.06, -0.72), (-0.06, 0.27), (-0.72, 0.27)]), 1.08)]


def draw_balloon(u, v):
    bag = union(circle(u, v, 0, -0.28, 0.72), polygon(u, v, [(-0.7, -0.12), (0.7, -0.12), (0.2, 0.56), (-0.2, 0.56)]))
    wide = (0.52 - (v + 0.28) ** 2).clamp_min(0.02).sqrt()
    gore = torch.maximum(bag, ((u / wide) * 1.0).abs() * 0.72 - 0.26)
    side = torch.maximum(bag, 0.52 - ((u / wide).abs()) * 0.72)
    rope = union(polygon(u, v, [(-0.19, 0.55), (-0.15, 0.55), (-0.11, 0.76), (-0.15, 0.76)]),
                 polygon(u, v, [(0.15, 0.55), (0.19, 0.55), (0.15, 0.76), (0.11, 0.76)]))
    return [(rope, "brown"), (box(u, v, -0.18, 0.74, 0.18, 1.0, 0.04), "brown"), (bag, 1.0), (side, 0.84), (gore, 1.12)]


def draw_star(u, v):
    pts = []
    for i in range(10):
        a, rad = math.pi * i / 5, (0.98 if i % 2 == 0 else 0.44)
        pts.append((rad * math.sin(a), 0.06 - rad * math.cos(a)))
    d = polygon(u, v, pts) - 0.03
    fold = torch.sin(5 * torch.atan2(u, 0.06 - v))
    return [(d, 1.0), (torch.maximum(d, -fold * 0.12), 0.86)]


def draw_heart(u, v):
    d = heart(u, v)
    return [(d, 0.9), (d + 0.12, 1.0), (ellipse(u * 0.8 - v * 0.6, u * 0.6 + v * 0.8, -0.02, -0.56, 0.2, 0.1), 1.35)]


def draw_kite(u, v):
    pts = [(0, -1.0), (0.68, -0.26), (0, 0.54), (-0.68, -0.26)]
    d = polygon(u, v, pts) - 0.02
    shade = torch.maximum(d, torch.where((v + 0.26) > 0, -u, u))
    spar = torch.maximum(d, union(u.abs() - 0.022, (v + 0.26).abs() - 0.022))
    tail = torch.maximum((u - 0.12 * torch.sin((v - 0.54) * 11)).abs() * 0.7 - 0.028, box(u, v, -0.4, 0.5, 0.4, 1.0))
    bows = union(ellipse(u, v, 0.12, 0.7, 0.13, 0.055), ellipse(u, v, -0.11, 0.94, 0.13, 0.055))
    return [(tail, "brown"), (bows, "brown"), (d, 1.1), (shade, 0.88), (spar, "cream")]


def draw_mushroom(u, v):
    cap = torch.maximum(ellipse(u, v, 0, 0.08, 0.97, 0.98), v - 0.1) - 0.02
    stem = union(box(u, v, -0.24, 0.0, 0.24, 0.92, 0.12), ellipse(u, v, 0, 0.82, 0.33, 0.16))
    dots = union(circle(u, v, -0.05, -0.52, 0.17), circle(u, v, -0.55, -0.16, 0.14), circle(u, v, 0.5, -0.22, 0.16),
                 circle(u, v, 0.08, -0.06, 0.1))
    return [(stem, "cream"), (torch.maximum(stem, v - 0.24), "sand"), (cap, 1.0),
            (torch.maximum(cap, -(v - 0.0)), 0.86), (torch.maximum(dots, cap), "cream")]


def draw_fish(u, v):
    body = ellipse(u, v, -0.14, 0, 0.8, 0.5)
    tail = polygon(u, v, [(0.42, 0), (0.98, -0.5), (0.86, 0), (0.98, 0.5)]) - 0.02
    fin = polygon(u, v, [(-0.4, -0.4), (0.22, -0.74), (0.34, -0.34)]) - 0.02
    belly = torch.maximum(body, -(v - 0.16))
    band = torch.maximum(body, union((u - 0.12).abs() - 0.055, (u - 0.36).abs() - 0.045))
    gill = torch.maximum(circle(u, v, -0.62, 0, 0.36), -circle(u, v, -0.68, 0, 0.36))
    return [(tail, 0.88), (fin, 0.84), (body, 1.0), (belly, 1.14), (band, 0.8), (gill, 0.8),
            (circle(u, v, -0.62, -0.12, 0.12), "cream"), (circle(u, v, -0.64, -0.12, 0.06), "dark")]


def draw_flower(u, v):
    y, petals, shades = -0.3, [], []
    for i in range(6):
        a = math.pi * i / 3
        p = circle(u, v, 0.42 * math.sin(a), y - 0.42 * math.cos(a), 0.29)
        petals.append(p)
        if i % 2 == 0:
            shades.append(p)
    leaf = union(ellipse(0.8 * (u - 0.26) + 0.6 * (v - 0.66), -0.6 * (u - 0.26) + 0.8 * (v - 0.66), 0, 0, 0.1, 0.27),
                 ellipse(0.8 * (u + 0.26) - 0.6 * (v - 0.74), 0.6 * (u + 0.26) + 0.8 * (v - 0.74), 0, 0, 0.1, 0.27))
    return [(box(u, v, -0.05, 0.1, 0.05, 1.0), "leaf"), (leaf, "leaf"), (union(*petals, circle(u, v, 0, y, 0.4)), 1.0),
            (union(*shades), 1.1), (circle(u, v, 0, y, 0.235), "dark"), (circle(u, v, 0, y, 0.2), "sand")]


DRAW = dict(house=draw_house, tree=draw_tree, boat=draw_boat, balloon=draw_balloon, star=draw_star, heart=draw_heart,
            kite=draw_kite, mushroom=draw_mushroom, fish=draw_fish, flower=draw_flower)
ROLES = {"cream": CREAM, "brown": BROWN, "dark": DARK, "leaf": (104, 136, 92), "sand": (226, 208, 172)}

# Background palettes: sky top, sky horizon, far layer, near layer, sun or moon (colour, radius), ridge style.
SKIES = {
    "meadow": ((150, 196, 220), (232, 240, 226), (172, 200, 158), (96, 134, 84), (255, 250, 224), 20, "hills"),
    "sunset": ((118, 102, 140), (238, 194, 166), (148, 122, 146), (72, 66, 104), (255, 232, 196), 26, "waves"),
    "snow": ((132, 138, 174), (226, 204, 208), (206, 212, 230), (236, 240, 248), (250, 240, 232), 17, "hills"),
    "desert": ((172, 200, 204), (244, 228, 196), (222, 196, 156), (168, 134, 100), (255, 250, 228), 20, "dunes"),
    "night": ((22, 26, 50), (78, 84, 122), (58, 66, 96), (22, 28, 44), (244, 238, 214), 18, "hills"),
    "mist": ((176, 190, 202), (240, 236, 226), (190, 200, 208), (82, 104, 116), (255, 248, 232), 18, "peaks"),
    "autumn": ((206, 208, 200), (246, 228, 196), (204, 176, 134), (126, 92, 74), (255, 246, 222), 19, "hills"),
    "moonsea": ((20, 32, 48), (72, 100, 118), (52, 78, 98), (20, 34, 52), (248, 242, 220), 20, "waves"),
}


def _over(img, alpha, colour):
    return img + alpha.unsqueeze(1) * (colour - img)


def _ridge(style, x, g, k):
    """Height of ridge k (0 far .. 3 near) over x in pixels, [B, 256]; g [B, 12] are uniform random numbers."""
    p = g[:, 3 * k:3 * k + 3] if k < 3 else g[:, 9:12]
    ph, ph2, sc = (2 * math.pi * p[:, :1]), (2 * math.pi * p[:, 1:2]), 0.75 + 0.5 * p[:, 2:3]
    base = {"hills": (150, 172, 196, 224), "dunes": (158, 178, 200, 226), "peaks": (138, 164, 192, 222),
            "waves": (156, 174, 196, 222)}[style][k]
    if style == "hills":
        y = (11 - 1.5 * k) * torch.sin(x * 0.019 * sc + ph) + 5 * torch.sin(x * 0.045 * sc + ph2)
    elif style == "dunes":
        t = (x * 0.0055 * sc + p[:, :1]) % 1.0
        crest = torch.where(t < 0.7, t / 0.7, (1 - t) / 0.3)
        y = 10 - 24 * (3 * crest ** 2 - 2 * crest ** 3) + 3 * torch.sin(x * 0.02 + ph2)
    elif style == "peaks":
        t1 = ((x * 0.0105 * sc + p[:, :1]) % 1.0 - 0.5).abs() * 2
        t2 = ((x * 0.026 * sc + p[:, 1:2]) % 1.0 - 0.5).abs() * 2
        y = -(34 - 6 * k) * (t1 - 0.5) - 10 * (t2 - 0.5)
    else:
        amp = (0, 2.0, 3.0, 4.0)[k]
        y = amp * torch.cos(x * (0.16, 0.13, 0.1, 0.075)[k] + ph).abs() * -1.6 if k else torch.zeros_like(x * sc)
    return base + y


def backgrounds(name, g, seed_noise):
    """Paint the background called name for g [B, 24] uniform numbers."""
    top, hor, far, near, sun, rad, style = SKIES[name]
    b, dev = g.shape[0], g.device
    ax = torch.arange(PX, device=dev, dtype=torch.float32) + 0.5
    x, y = ax.view(1, 1, PX), ax.view(1, PX, 1)
    tone = 1 + 0.06 * (g[:, 12:13] - 0.5).view(b, 1, 1, 1)
    f = (y / 165).clamp(0, 1).unsqueeze(1)
    img = (_rgb(top, g).view(1, 3, 1, 1) * (1 - f) + _rgb(hor, g).view(1, 3, 1, 1) * f) * tone
    img = img.expand(b, 3, PX, PX)
    dark = name in ("night", "moonsea")
    if dark:                                # stars: one per cell of a jittered grid, some missing
        cell = 32.0
        gx, gy = (x / cell).floor(), (y / cell).floor()
        h = torch.sin(gx * 12.9898 + gy * 78.233 + 37.0 * g[:, 13].view(b, 1, 1)) * 43758.5453
        h = h - h.floor()
        h2 = (h * 57.31) % 1.0
        sx, sy = (gx + 0.2 + 0.6 * h) * cell, (gy + 0.2 + 0.6 * h2) * cell
        d = ((x - sx) ** 2 + (y - sy) ** 2).sqrt() - (0.5 + 1.1 * ((h * 91.7) % 1.0))
        img = _over(img, (0.5 - d).clamp(0, 1) * (h2 > 0.3) * (y < 150) * 0.9, _rgb((240, 236, 220), g).view(1, 3, 1, 1))
    horizon = style == "waves"
    sx = (40 + 176 * g[:, 14]).view(b, 1, 1)
    sy = (150 - 8 * g[:, 15] if name == "sunset" else 34 + 40 * g[:, 15]).view(b, 1, 1)
    d = ((x - sx) ** 2 + (y - sy) ** 2).sqrt() - rad
    disc = _rgb(sun, g).view(1, 3, 1, 1)
    glow = 0.42 * torch.exp(-d.clamp_min(0) / 26) + 0.1 * torch.exp(-((d.clamp_min(0) / 13) % 1.0) * 4) * (d < 39)
    img = _over(img, glow.clamp(0, 1), disc)
    img = _over(img, (0.5 - d).clamp(0, 1), disc)
    if not dark and name != "mist":         # paper clouds
        for i in range(2):
            cx = (PX * g[:, 16 + 2 * i]).view(b, 1, 1)
            cy = (30 + 70 * g[:, 17 + 2 * i]).view(b, 1, 1)
            d = union(ellipse(x, y, cx, cy, 30.0, 7.0), ellipse(x, y, cx - 9, cy - 5, 13.0, 9.0),
                      ellipse(x, y, cx + 9, cy - 3, 12.0, 7.0))
            d = torch.maximum(d, y - cy - 5)
            img = _over(img, 0.16 * torch.exp(-(d - 1).clamp_min(0) / 3), _rgb((60, 60, 80), g).view(1, 3, 1, 1))
            img = _over(img, (0.5 - d).clamp(0, 1) * 0.85, (_rgb((255, 252, 246), g) * 0.75 + _rgb(hor, g) * 0.25).view(1, 3, 1, 1))
    for k in range(4):
        ridge = _ridge(style, ax.view(1, PX), g, k).view(b, 1, PX)
        d = ridge - y
        w = k / 3.0
        col = (_rgb(far, g) * (1 - w) + _rgb(near, g) * w).view(1, 3, 1, 1)
        img = _over(img, 0.22 * torch.exp(-d.clamp_min(0) / 5), _rgb((40, 36, 60), g).view(1, 3, 1, 1))
        light = 1.07 - 0.16 * ((y - ridge) / 60).clamp(0, 1)
        layer = (col * light.unsqueeze(1) * tone)
        edge = torch.exp(-((y - ridge) / 2.2).clamp_min(0)) * 0.22
        layer = layer + edge.unsqueeze(1) * (1 - layer)
        if name == "mist":
            layer = layer + (0.5 * ((y - ridge) / 46).clamp(0, 1)).unsqueeze(1) * (_rgb((236, 234, 228), g).view(1, 3, 1, 1) - layer)
        if horizon:                         # a path of light on the water
            wob = (x - sx).abs() - (6 + 5 * k) - 4 * torch.sin(y * 0.9)
            lit = torch.sigmoid(-wob / 4) * (0.5 + 0.5 * torch.sin(y * 0.55 + 1.3 * k)) * 0.34
            layer = layer + lit.unsqueeze(1) * (disc - layer)
        a = (0.5 - d).clamp(0, 1).unsqueeze(1)
        img = img + a * (layer - img)
        if name in ("snow", "autumn", "meadow", "night") and k in (1, 2):   # far little woods
            step = 13.0 + 4 * k
            cellx = ((x + 40 * g[:, 20 + k].view(b, 1, 1)) / step)
            cell = cellx.floor()
            hh = torch.sin(cell * 91.7 + 50 * g[:, 22].view(b, 1, 1) + k) * 4375.85
            hh = hh - hh.floor()
            px = (cellx - cell - 0.5) * step + (hh - 0.5) * 4
            mid = _ridge(style, ax.view(1, PX), g, k).view(b, 1, PX)
            tall = (5 + 8 * hh) * (hh > 0.45)
            base = mid + 5 + 6 * ((hh * 7.7) % 1.0)
            if name == "autumn":
                dt = ((px) ** 2 + ((y - base + tall * 0.6) * 0.85) ** 2).sqrt() - tall * 0.42
            else:
                dt = torch.maximum(px.abs() * 0.9 - (y - base + tall) * 0.32, y - base)
            tcol = col.view(3) * 0.82 + 0.18 * _rgb((60, 66, 84) if name in ("snow", "night") else
                                                    ((150, 96, 74) if name == "autumn" else (84, 120, 84)), g)
            img = _over(img, (0.5 - dt).clamp(0, 1) * (tall > 0), tcol.view(1, 3, 1, 1))
    return img.clamp(0, 1)


def shade(colour, factor):
    """colour [B, 3]: below 1 darker, above 1 towards white."""
    if factor <= 1:
        return colour * factor
    return colour + (factor - 1) * (1 - colour)


def paint_objects(img, kind, at, par, colour):
    """Paint objects of one kind: at [M] picture index, par [M, 6] x y r rot flip tone, colour [M, 3]."""
    m, dev = at.numel(), img.device
    xy0 = (par[:, :2] - WIN / 2).round().clamp(0, PX - WIN)
    ar = torch.arange(WIN, device=dev, dtype=torch.float32)
    px = xy0[:, :1].unsqueeze(1) + ar.view(1, 1, WIN) + 0.5 - par[:, 0].view(m, 1, 1)
    py = xy0[:, 1:].unsqueeze(1) + ar.view(1, WIN, 1) + 0.5 - par[:, 1].view(m, 1, 1)
    r = par[:, 2].view(m, 1, 1)
    c, s = torch.cos(par[:, 3]).view(m, 1, 1), torch.sin(par[:, 3]).view(m, 1, 1)
    u = (px * c + py * s) / r * (1 - 2 * par[:, 4].view(m, 1, 1))
    v = (py * c - px * s) / r
    layers = DRAW[kind](u, v)
    outline = union(*[d for d, _ in layers]) * r
    iy = (xy0[:, 1].long().view(m, 1) + torch.arange(WIN, device=dev)).view(m, WIN, 1)
    ix = (xy0[:, 0].long().view(m, 1) + torch.arange(WIN, device=dev)).view(m, 1, WIN)
    win = img[at.view(m, 1, 1), :, iy, ix].permute(0, 3, 1, 2)
    shadow = torch.roll(0.34 * torch.exp(-(outline - 1.5).clamp_min(0) / 4.0), (3, 2), (1, 2))
    win = _over(win, shadow, _rgb((34, 30, 50), img).view(1, 3, 1, 1))
    rim = 1.3 + 0.022 * r
    win = _over(win, (0.5 - (outline - rim)).clamp(0, 1), _rgb(CREAM, img).view(1, 3, 1, 1))
    glow = (1.0 - 0.1 * v - 0.05 * u).clamp(0.82, 1.12) * par[:, 5].view(m, 1, 1)
    for d, role in layers:
        a = (0.5 - d * r).clamp(0, 1)
        if isinstance(role, str):
            col = _rgb(ROLES[role], img).view(1, 3, 1, 1)
        else:
            col = (shade(colour, role).view(m, 3, 1, 1) * glow.unsqueeze(1)).clamp(0, 1)
        win = _over(win, a, col)
    img[at.view(m, 1, 1), :, iy, ix] = win.permute(0, 2, 3, 1)


def pack(scenes):
    """Scenes as tensors: background [B], randoms [B, 24], object rows [M, 9]: picture, kind, colour, x, y, r, rot, flip, tone."""
    gen = torch.Generator()
    gen.manual_seed(scenes[0]["seed"] if scenes else 0)
    back = torch.tensor([list(SKIES).index(s["background"]) for s in scenes])
    g = torch.rand(len(scenes), 24, generator=gen)
    rows = [[i, KINDS.index(o["kind"]), COLOURS.index(o["colour"]), o["x"], o["y"], o["r"], o["rot"], float(o["flip"]), 1.0]
            for i, s in enumerate(scenes) for o in s["objects"]]
    rows = torch.tensor(rows, dtype=torch.float32).view(-1, 9)
    rows[:, 8] = 0.96 + 0.08 * torch.rand(len(rows), generator=gen)
    return back, g, rows


@torch.no_grad()
def render(back, g, rows):
    """The pictures, [B, 3, 256, 256] in 0..1, on the device of the arguments."""
    img = torch.empty(len(back), 3, PX, PX, device=g.device)
    for i, name in enumerate(SKIES):
        at = (back == i).nonzero().view(-1)
        if at.numel():
            img[at] = backgrounds(name, g[at], None)
    table = torch.tensor([RGB[c] for c in COLOURS], device=g.device) / 255.0
    for i, kind in enumerate(KINDS):
        for slot_rows in _slots(rows[rows[:, 1] == i]):
            if len(slot_rows):
                paint_objects(img, kind, slot_rows[:, 0].long(), slot_rows[:, 3:9], table[slot_rows[:, 2].long()])
    return img


def _slots(rows):
    """Split rows so that no picture occurs twice in a part (a window is read, painted, written back)."""
    at = rows[:, 0]
    rank = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    if len(rows) > 1:
        rank[1:] = (at[1:] == at[:-1]).long()
        rank[2:] += ((at[2:] == at[:-2])).long()
    return [rows[rank == k] for k in range(3)]
