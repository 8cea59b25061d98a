/* Workers: loops beside the main one, each in a thread of its own, for objects that are busy with themselves.
 *
 * A worker has one lock, which it gives up only while it waits for sockets: so its objects need no locks, and a message
 * costs none.  The main thread takes it before it touches what lies on the worker's loop (td_worker_hold), and has it
 * until it waits for sockets itself; it may then call, free and move there as if it were on that loop.  It may hold
 * several workers, a worker holds nobody, so that nobody waits in a circle.  Whoever holds a worker has brought both
 * clocks up to date: `now` of either loop is never behind what the other has written down.
 *
 * A worker that has something to say to the main loop posts (td_worker_post): mail(ctx) runs there, with the worker
 * held. */
#ifndef TD_BASE_WORKER_H
#define TD_BASE_WORKER_H
#include "tunneld/base/loop.h"

#define TD_WORKERS_MAX 64u

struct td_worker;
/* name: of the thread, 15 bytes. NULL: no memory, or no thread. */
struct td_worker *td_worker_new(struct td_loop *home, const char *name, void (*mail)(void *ctx), void *ctx);
struct td_loop *td_worker_loop(const struct td_worker *w);
void td_worker_hold(struct td_worker *w);	   /* on the main thread; on the worker's own, or NULL: nothing */
void td_worker_post(struct td_worker *w);	   /* on the worker */
bool td_worker_here(void);			   /* is this the thread of one? */
uint64_t td_worker_cpu(const struct td_worker *w); /* ns that its thread has had; 0: it has ended */
uint64_t td_worker_cpu_here(void);		   /* the same of the calling one */
/* The thread ends. What is on the loop stays there for the main thread to free, and goes with td_worker_free at last.
 */
void td_worker_stop(struct td_worker *w);
void td_worker_free(struct td_worker *w);
unsigned td_worker_cores(void); /* that this process may use, TD_WORKERS_MAX at most */
#endif
