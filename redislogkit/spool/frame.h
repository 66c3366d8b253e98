/* A frame as `segment` describes it: length and checksum, sequence, payload. */

#include <stddef.h>
#include <stdint.h>

enum { HEAD = 16 };

/* Adler-32 as in RFC 1950, going on from a value below 65521. */
static uint32_t adler32(uint32_t start, const unsigned char *bytes, size_t size)
{
    uint32_t a = start & 0xffff, b = start >> 16;
    while (size) {
        size_t some = size < 5552 ? size : 5552; /* so many sums fit into 32 bits */
        size -= some;
        for (; some >= 8; some -= 8, bytes += 8) {
            b += 8 * a + 8 * bytes[0] + 7 * bytes[1] + 6 * bytes[2] + 5 * bytes[3] + 4 * bytes[4] + 3 * bytes[5]
                 + 2 * bytes[6] + bytes[7];
            a += bytes[0] + bytes[1] + bytes[2] + bytes[3] + bytes[4] + bytes[5] + bytes[6] + bytes[7];
        }
        while (some--) {
            a += *bytes++;
            b += a;
        }
        a %= 65521;
        b %= 65521;
    }
    return b << 16 | a;
}

/* `segment.checksum`: the start value holds all bits of the sequence and of the length. */
static uint32_t checksum(const unsigned char *payload, size_t size, uint64_t sequence)
{
    uint32_t rest = (uint32_t)((sequence + 362 * (uint64_t)size + 1) % 65521); /* of the complement, negated */
    return adler32(rest ? 65521 - rest : 0, payload, size);
}
