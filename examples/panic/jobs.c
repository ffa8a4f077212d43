/* The first process of a machine that does not come up: it runs jobs out of a table.
 *
 * It needs no C library. Its bug is an old one: session.py finds it going backwards.
 */

#define SYS_write 1

struct job {
    char name[8];
    void (*run)(const struct job *);
};

static struct job jobs[3];
static int count;

static long say(const char *text)
{
    long answer, length = 0;

    while (text[length])
        length++;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(SYS_write), "D"(1), "S"(text), "d"(length)
                     : "rcx", "r11", "memory");
    return answer;
}

static void start(const struct job *job)
{
    say("starting ");
    say(job->name);
    say("\n");
}

static void set_name(struct job *job, const char *name)
{
    char *to = job->name;

    while ((*to++ = *name++))
        ;
}

static void add(const char *name)
{
    struct job *job = &jobs[count++];

    job->run = start;
    set_name(job, name);
}

static void run_all(void)
{
    for (int i = 0; i < count; i++)
        jobs[i].run(&jobs[i]);
}

void _start(void)
{
    say("INIT-START\n");
    add("disks");
    add("clock");
    add("network-interfaces");
    run_all();
    for (;;)
        ;
}
