/* Code for source-level stepping; tests find its lines by their comments. */

static volatile unsigned long total;

static unsigned long triangle(unsigned long n)
{
    unsigned long sum = 0; /* triangle first */

    for (unsigned long i = 1; i <= n; i++)
        sum += i;
    return sum; /* triangle last */
}

unsigned long compute(void);

unsigned long compute(void)
{
    total = 1;            /* one */
    total += triangle(9); /* two */
    total *= 3;           /* three */
    for (int i = 0; i < 4; i++)
        total += triangle(100); /* loop */
    total ^= 0xff; /* four */
    return total;
}
