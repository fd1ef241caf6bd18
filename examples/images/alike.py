"""What can be computed from the pixels of a picture: its colours, and a hash that similar pictures share."""

import math

Pixel = tuple[int, int, int]

COLOURS = 5
ROUNDS = 12
SIDE = 32  # of the picture that the hash is made of
KEPT = 8  # frequencies in each direction
NEAR = 8  # hashes that differ in no more bits than this belong to pictures that are alike


def colours(pixels: list[Pixel]) -> list[str]:
    """The colours that stand for most of the pixels, the most frequent first, as `#rrggbb` (k-means)."""
    different = sorted(set(pixels), key=sum)
    centres: list[tuple[float, float, float]] = [
        different[at * (len(different) - 1) // (COLOURS - 1)] for at in range(COLOURS)
    ]
    counts = [0] * COLOURS
    for _ in range(ROUNDS):
        sums = [[0, 0, 0] for _ in range(COLOURS)]
        counts = [0] * COLOURS
        for r, g, b in pixels:
            nearest, least = 0, math.inf
            for at, (x, y, z) in enumerate(centres):
                far = (r - x) * (r - x) + (g - y) * (g - y) + (b - z) * (b - z)
                if far < least:
                    nearest, least = at, far
            counts[nearest] += 1
            total = sums[nearest]
            total[0] += r
            total[1] += g
            total[2] += b
        centres = [
            (total[0] / count, total[1] / count, total[2] / count) if count else centre
            for total, count, centre in zip(sums, counts, centres, strict=True)
        ]
    found = sorted(zip(counts, centres, strict=True), reverse=True)
    return list(dict.fromkeys("#{:02x}{:02x}{:02x}".format(*map(round, centre)) for count, centre in found if count))


def fingerprint(grey: list[float]) -> str:
    """64 bits as hexadecimal digits, from SIDE x SIDE values of brightness: which low frequencies are strong."""
    wave = [[math.cos(math.pi * u * (2 * x + 1) / (2 * SIDE)) for x in range(SIDE)] for u in range(KEPT)]
    rows = [[sum(map(float.__mul__, line, grey[y * SIDE : (y + 1) * SIDE])) for line in wave] for y in range(SIDE)]
    strength = [sum(wave[v][y] * rows[y][u] for y in range(SIDE)) for v in range(KEPT) for u in range(KEPT)]
    strength[0] = 0.0  # how bright it is as a whole
    middle = sorted(strength)[len(strength) // 2]
    bits = sum(1 << at for at, value in enumerate(strength) if value > middle)
    return f"{bits:016x}"


def groups(hashes: list[str | None]) -> list[list[int]]:
    """Positions of pictures that are alike, each group with two or more."""
    known = [(at, int(text, 16)) for at, text in enumerate(hashes) if text is not None]
    group = {at: {at} for at, _ in known}
    for position, (at, one) in enumerate(known):
        for other_at, other in known[:position]:
            if (one ^ other).bit_count() <= NEAR and group[at] is not group[other_at]:
                group[other_at] |= group[at]
                for member in group[at]:
                    group[member] = group[other_at]
    return sorted({min(found): sorted(found) for found in group.values() if len(found) > 1}.values())
