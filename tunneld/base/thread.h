/* Threads that leave the process's signals to the loop's thread.
 * What a thread does wrong itself (SIGSEGV, SIGSYS …) is not blocked in it: blocked, it would kill without a word. */
#ifndef TD_THREAD_H
#define TD_THREAD_H

#include <pthread.h>

/* 0, or what pthread_create() answers; *thread is good then and is the caller's to join or detach. */
int td_thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);

#endif
