/* The only program of a Linux guest: without a library, linked to run at any address.
 *
 * As /init it starts itself twice, one after the other, each time at an address that the kernel
 * chooses anew, and then powers off. What the kernel's command line says after "--" is for it:
 * with "odd" the children do something else besides; with "inputs" or "inputs-odd" the first one
 * works as long as clocks and other inputs tell it, and the second one waits for a thread.
 */

static long call(long number, long a, long b, long c, long d)
{
    register long fourth __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}

enum { WRITE = 1, CLONE = 56, FORK = 57, EXECVE = 59, EXIT = 60, WAIT4 = 61, REBOOT = 169 };
enum { CLOCK_GETTIME = 228, GETRANDOM = 318 };
enum { THREAD = 0x10f00 }; /* CLONE_VM, _FS, _FILES, _SIGHAND and _THREAD */

unsigned long counted;

__attribute__((noinline)) void say(const char *text, long size)
{
    call(WRITE, 1, (long)text, size, 0);
}

__attribute__((noinline)) void count_up(unsigned long turns)
{
    for (unsigned long turn = 0; turn < turns; turn++)
        *(volatile unsigned long *)&counted += turn;
}

__attribute__((noinline)) void take_another_way(void)
{
    say("odd\n", 4);
}

/* What QEMU's clocks tell is the number of instructions, times a power of two. */
static unsigned long some(unsigned long number)
{
    return (number ^ number >> 16) & 0xffff;
}

__attribute__((noinline)) void work_as_told(void)
{
    unsigned int low, high;
    unsigned long time[2], number;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    count_up(some(low));
    call(CLOCK_GETTIME, 0, (long)time, 0, 0);
    count_up(some(time[1]));
    call(GETRANDOM, (long)&number, sizeof number, 0, 0);
    count_up(some(number));
}

static long stack_of_thread[512];
static volatile long is_done;

__attribute__((noinline)) void wait_for_thread(void)
{
    long result;
    register long none __asm__("r10") = 0;
    __asm__ volatile("syscall\n"
                     "test %%eax, %%eax\n"
                     "jnz 1f\n"
                     "mov $2000000, %%edi\n"
                     "call count_up\n"
                     "movl $1, %3\n"
                     "xor %%edi, %%edi\n"
                     "mov $60, %%eax\n"
                     "syscall\n"
                     "1:\n"
                     : "=a"(result)
                     : "a"(CLONE), "D"(THREAD), "m"(is_done), "S"(stack_of_thread + 512), "d"(0),
                       "r"(none)
                     : "rcx", "r8", "r11", "memory");
    while (!is_done)
        ;
}

static void start_child(char *order, char *word)
{
    char name[] = "/init", *arguments[] = {name, order, word, 0}, *none[] = {0};
    if (call(FORK, 0, 0, 0, 0) == 0) {
        call(EXECVE, (long)name, (long)arguments, (long)none, 0);
        call(EXIT, 1, 0, 0, 0);
    }
    call(WAIT4, -1, 0, 0, 0);
}

int begin(long *stack)
{
    char **arguments = (char **)(stack + 1);
    char *word = stack[0] > 1 ? arguments[stack[0] - 1] : 0;
    if (stack[0] > 1 && arguments[1][0] == 'c') {
        int has_inputs = stack[0] > 2 && word[0] == 'i';
        if (has_inputs && arguments[1][5])
            wait_for_thread();
        else if (has_inputs)
            work_as_told();
        say("child\n", 6);
        count_up(1000000);
        if (stack[0] > 2 && (word[0] == 'o' || (has_inputs && word[6])))
            take_another_way();
        count_up(1000);
        return 0;
    }
    start_child("child", word);
    start_child("child2", word);
    say("done\n", 5);
    call(REBOOT, 0xfee1dead, 0x28121969, 0x4321fedc, 0);
    return 0;
}

__asm__(".globl _start\n"
        "_start: mov %rsp, %rdi\n"
        "        and $-16, %rsp\n"
        "        call begin\n"
        "        mov %eax, %edi\n"
        "        mov $60, %eax\n"
        "        syscall\n");
