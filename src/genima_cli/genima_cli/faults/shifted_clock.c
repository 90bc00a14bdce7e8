/* Preloaded into a process: shift its real-time clock by the seconds in the file GENIMA_CLOCK_SHIFT (a double), from the
   moment on that they are written there, for all processes and threads at once. The monotonic clock is unchanged, as when
   the clock of a computer is set. Deadlines on the real-time clock are converted to the kernel's time: otherwise waits
   would end at once, or last longer by the shift. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

#define NOT_MONOTONIC 1000000000 /* s: no computer runs for 30 years */

static const volatile double *shift;
static int (*true_clock)(clockid_t, struct timespec *);
static int (*true_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*true_cond_clockwait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
static int (*true_mutex_timedlock)(pthread_mutex_t *, const struct timespec *);
static int (*true_sem_timedwait)(sem_t *, const struct timespec *);

__attribute__((constructor)) static void open_shift(void) {
    const char *path = getenv("GENIMA_CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    true_clock = dlsym(RTLD_NEXT, "clock_gettime");
    true_cond_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2"); /* x86-64 has an older one, too */
    if (!true_cond_timedwait) true_cond_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    true_cond_clockwait = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    true_mutex_timedlock = dlsym(RTLD_NEXT, "pthread_mutex_timedlock"); /* Fast DDS takes its locks with it */
    true_sem_timedwait = dlsym(RTLD_NEXT, "sem_timedwait");
    if (page != MAP_FAILED) shift = page;
}

static void add(struct timespec *time, double seconds) {
    double whole = floor(seconds);
    time->tv_sec += (time_t)whole;
    time->tv_nsec += (long)((seconds - whole) * 1e9);
    if (time->tv_nsec >= 1000000000) {
        time->tv_nsec -= 1000000000;
        time->tv_sec += 1;
    }
}

static struct timespec true_time(const struct timespec *shown) {
    struct timespec time = *shown;
    if (shift && time.tv_sec > NOT_MONOTONIC) add(&time, -*shift);
    return time;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    if (!true_clock) open_shift();
    int code = true_clock(id, now);
    if (code == 0 && shift && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) add(now, *shift);
    return code;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    if (!true_cond_timedwait) open_shift();
    struct timespec time = true_time(until);
    return true_cond_timedwait(cond, mutex, &time);
}

int pthread_cond_clockwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, clockid_t clock,
                           const struct timespec *restrict until) {
    if (!true_cond_clockwait) open_shift();
    struct timespec time = true_time(until);
    return true_cond_clockwait(cond, mutex, clock, &time);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    if (!true_mutex_timedlock) open_shift();
    struct timespec time = true_time(until);
    return true_mutex_timedlock(mutex, &time);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    if (!true_sem_timedwait) open_shift();
    struct timespec time = true_time(until);
    return true_sem_timedwait(semaphore, &time);
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec fine;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &fine)) return -1;
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    if (out) *out = fine.tv_sec;
    return fine.tv_sec;
}
