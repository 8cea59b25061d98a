/* The ends of a measurement: a server, and a client with a mode for each thing that is measured.
 * Both run on one machine (in whatever namespaces), so they share CLOCK_MONOTONIC: a request names the
 * moment at which counting ends, and no answer has to come back in time for it.
 *
 * What a stream carries is a function of its seed and the place in it, and the receiver compares every byte. */
#ifndef TRAFFIC_H
#define TRAFFIC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHUNK = 128 * 1024, PING_BYTES = 64 };
#define NEVER UINT64_MAX

/* Everything in host order: both ends are the same program. */
struct request {
	uint32_t magic;
	uint32_t op; /* enum op */
	uint64_t seed;
	uint64_t bytes;	   /* how many to move in each direction; 0: until the deadline */
	uint64_t deadline; /* CLOCK_MONOTONIC, ns; 0: none */
};
enum op {
	OP_NOTHING, /* answered by one byte; another request may follow */
	OP_ECHO,    /* what follows comes back */
	OP_UP,	    /* the client sends; answered by a report */
	OP_DOWN,    /* the server sends */
	OP_BOTH	    /* both; the report follows what the server sends */
};
#define REQUEST_MAGIC 0x7261666bu

struct report { /* of what the server has received */
	uint64_t magic, bytes, wrong;
	uint64_t at; /* when the last byte that counts was there, CLOCK_MONOTONIC, ns */
};
#define REPORT_MAGIC 0x7265706f72747fu

struct options {
	const char *mode, *host;
	unsigned port;
	unsigned streams, parallel, count;
	double seconds, settle; /* how long; what of it says nothing about pings */
	double gap_ms;		/* between pings */
	uint64_t bytes;		/* of all streams; 0: until the time is over */
	bool warm;		/* every connection is answered before the time begins */
	bool hold;		/* and the caller says when it does */
	bool ping;		/* a ping beside the bulk, and alone before it */
	uint64_t limit;		/* when to give up, CLOCK_MONOTONIC, ns */
};

uint64_t now_ns(void);
const uint8_t *pattern_at(uint64_t seed, uint64_t place); /* CHUNK bytes and more may be read there */
/* How many of n bytes differ from what belongs there. */
uint64_t pattern_wrong(uint64_t seed, uint64_t place, const uint8_t *p, size_t n);

void fail(const char *what) __attribute__((noreturn)); /* with errno's text; prints it as JSON too */
int dial(const struct options *o, bool wait);	       /* -> descriptor; wait: connected and blocking, or -1 */
bool write_whole(int fd, const void *p, size_t n);     /* blocking */
bool read_whole(int fd, void *p, size_t n);
bool ask_nothing(int fd); /* one byte there and back */
void send_request(int fd, enum op op, uint64_t seed, uint64_t bytes, uint64_t deadline);
void close_hard(int fd); /* what is on its way is of no interest */

struct samples {
	double *v;
	size_t n, cap;
};
void samples_add(struct samples *s, double v);
/* "name": {"count": …, "median": …, "p95": …, "max": …}, seconds; nothing when there are none; empties. */
void samples_print(struct samples *s, const char *name);

int serve(const char *host, unsigned port);
int run_bulk(const struct options *o);
int run_ping(const struct options *o);
int run_connect(const struct options *o);
int run_hold(const struct options *o);
int run_wait(const struct options *o);

#endif
