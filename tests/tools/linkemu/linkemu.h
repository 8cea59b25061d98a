/* The parts of linkemu: main.c (commands), space.c (namespaces and devices), queue.c (what is on its way). */
#ifndef LINKEMU_H
#define LINKEMU_H
#include <linux/virtio_net.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LINKS_MAX = 2, VNET = sizeof(struct virtio_net_hdr) };

/* What all directions of all links do to a packet. */
struct link_rules {
	atomic_ullong delay_ns, rate, queue_max, loss; /* bytes a second, bytes, in 10,000; 0: none, automatic, none */
	atomic_bool down;
};
extern struct link_rules rules;

/* Used by its thread alone, but for the counters. */
struct direction {
	int from, to, wake;
	struct piece *ring;
	uint32_t head, tail; /* free running */
	uint64_t free_at;    /* when the rate has let everything through */
	uint64_t seed;
	struct buffer *spare[2]; /* small, large */
	atomic_ullong passed, lost, overflowed, reads, bytes;
};

void fail(const char *what) __attribute__((noreturn)); /* with errno's text, on stdout */

/* Without return where it fails. */
int new_space(void);				   /* a network namespace, entered by this thread; -> its descriptor */
void enter(int space);				   /* by this thread */
int new_device(const char *dev, const char *addr); /* a TUN device in this thread's namespace; addr/24 */
void set_address(const char *dev, const char *addr);
void add_route(const char *dev, const char *net); /* net/24 lies behind dev */
void set_forwarding(void);
unsigned long long space_missed(int space); /* packets that the kernel dropped in front of our devices; enters it */

void direction_start(struct direction *d, uint64_t seed); /* from and to are set: its thread runs from now on */

#endif
