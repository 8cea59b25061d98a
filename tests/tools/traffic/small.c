/* The client's modes that are about connections and round trips, not about bytes. */
#include "tests/tools/traffic/traffic.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PARALLEL_MAX = 1024, BATCH = 100, WARM_PINGS = 20 };

static void pause_ms(double ms)
{
	struct timespec t = {(time_t)(ms / 1000), (long)(ms * 1e6) % 1000000000};

	nanosleep(&t, NULL);
}

/* 64 bytes there and back, one after the other. */
int run_ping(const struct options *o)
{
	struct samples rtt = {0};
	uint8_t data[PING_BYTES], got[PING_BYTES];
	int fd = dial(o, true);

	if (fd < 0)
		fail("connect");
	send_request(fd, OP_ECHO, 0, 0, 0);
	memcpy(data, pattern_at(7, 0), PING_BYTES);
	for (unsigned i = 0; i < o->count + WARM_PINGS && now_ns() < o->limit; i++) {
		uint64_t t = now_ns();

		if (!write_whole(fd, data, PING_BYTES) || !read_whole(fd, got, PING_BYTES))
			fail("ping");
		if (memcmp(data, got, PING_BYTES) != 0)
			fail("ping differs");
		if (i >= WARM_PINGS)
			samples_add(&rtt, (double)(now_ns() - t) / 1e9);
		if (o->gap_ms > 0)
			pause_ms(o->gap_ms);
	}
	printf("{\"mode\": \"ping\", \"failed\": 0");
	samples_print(&rtt, "rtt");
	printf("}\n");
	return 0;
}

/* --- connections a second ------------------------------------------------------------------------------ */

struct slot {
	int fd;
	bool asked;
	uint64_t began;
};

/* The next connection of a slot. -> false: there are no ports left just now */
static bool slot_dial(const struct options *o, int ep, struct slot *s)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = s};

	s->began = now_ns();
	s->asked = false;
	s->fd = dial(o, false);
	if (s->fd < 0)
		return false;
	epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &e);
	return true;
}

/* Connected: asks.  Answered: counts, and it is the next one's turn. -> 1 counted, 0 goes on, -1 failed */
static int slot_event(struct slot *s)
{
	struct request q = {.magic = REQUEST_MAGIC, .op = OP_NOTHING};
	char answer;

	if (!s->asked) {
		s->asked = true;
		return send(s->fd, &q, sizeof(q), MSG_NOSIGNAL) == (ssize_t)sizeof(q) ? 0 : -1;
	}
	ssize_t n = recv(s->fd, &answer, 1, 0);
	if (n < 0 && errno == EAGAIN)
		return 0;
	return n == 1 ? 1 : -1;
}

/* Connect, ask, be answered by one byte, close: `parallel` of them at a time. */
int run_connect(const struct options *o)
{
	struct slot *slots = calloc(o->parallel, sizeof(*slots));
	struct epoll_event ev[PARALLEL_MAX];
	struct samples each = {0};
	int ep = epoll_create1(EPOLL_CLOEXEC);
	unsigned failed = 0, no_port = 0;
	uint64_t t0 = now_ns(), end = t0 + (uint64_t)(o->seconds * 1e9);

	if (!slots || ep < 0 || o->parallel > PARALLEL_MAX)
		fail("parallel");
	for (unsigned i = 0; i < o->parallel; i++)
		slots[i].fd = -1;
	while (now_ns() < end && now_ns() < o->limit) {
		for (unsigned i = 0; i < o->parallel; i++)
			no_port += slots[i].fd < 0 && !slot_dial(o, ep, &slots[i]);
		int n = epoll_wait(ep, ev, PARALLEL_MAX, 10);
		for (int i = 0; i < n; i++) {
			struct slot *s = ev[i].data.ptr;
			int did = slot_event(s);

			if (!did)
				continue;
			if (did > 0)
				samples_add(&each, (double)(now_ns() - s->began) / 1e9);
			else
				failed++;
			close(s->fd);
			s->fd = -1;
		}
	}
	printf(
	    "{\"mode\": \"connect\", \"parallel\": %u, \"seconds\": %.6f, \"connections\": %zu, \"failed\": %u, \"no_port\": %u",
	    o->parallel, (double)(now_ns() - t0) / 1e9, each.n, failed, no_port);
	samples_print(&each, "each");
	printf("}\n");
	free(slots);
	return 0;
}

/* --- connections that are held, and the first one ------------------------------------------------------ */

/* Opens them in groups, each answered by a byte; stays until its input ends. */
int run_hold(const struct options *o)
{
	struct request q = {.magic = REQUEST_MAGIC, .op = OP_NOTHING};
	int *fds = calloc(o->count + 1, sizeof(*fds));
	uint64_t t0 = now_ns();
	char c;

	if (!fds)
		fail("memory");
	for (unsigned n = 0; n < o->count;) {
		unsigned most = o->count - n < BATCH ? o->count - n : BATCH;

		for (unsigned i = 0; i < most; i++) {
			fds[n + i] = dial(o, true);
			if (fds[n + i] < 0 || !write_whole(fds[n + i], &q, sizeof(q)))
				fail("connect");
		}
		for (unsigned i = 0; i < most; i++)
			if (!read_whole(fds[n + i], &c, 1))
				fail("answer");
		n += most;
		if (now_ns() > o->limit)
			fail("time is over");
	}
	printf("{\"mode\": \"hold\", \"connections\": %u, \"failed\": 0, \"seconds\": %.6f}\n", o->count,
	       (double)(now_ns() - t0) / 1e9);
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	free(fds);
	return 0;
}

/* Connects until somebody answers: when the first byte is through. */
int run_wait(const struct options *o)
{
	struct timeval most = {5, 0};
	uint64_t t0 = now_ns();
	unsigned tries = 0;

	printf("{\"mode\": \"wait\", \"from\": %.6f", (double)t0 / 1e9);
	fflush(stdout);
	while (now_ns() < o->limit) {
		int fd = dial(o, true);

		tries++;
		if (fd >= 0) {
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
			if (ask_nothing(fd)) {
				uint64_t at = now_ns();

				printf(", \"at\": %.6f, \"tries\": %u, \"failed\": 0}\n", (double)at / 1e9, tries);
				return 0;
			}
			close(fd);
		}
		pause_ms(0.5);
	}
	printf(", \"tries\": %u, \"failed\": 1}\n", tries);
	return 1;
}
