/* The server: one thread, epoll, any number of connections; each sends requests (traffic.h). */
#include "tests/tools/traffic/traffic.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, ECHO_ROOM = 65536 };

struct conn {
	int fd;
	uint32_t events; /* what epoll watches */
	struct request q;
	size_t q_len; /* of the request so far; all of it: it is being served */
	uint64_t received, wrong, sent;
	bool counted; /* the report is made: what still comes is read and forgotten */
	struct report report;
	size_t report_sent;
	uint8_t *echo; /* what could not be written at once */
	size_t echo_len;
	struct conn *prev, *next; /* of those with a deadline */
};

static struct conn timed = {.prev = &timed, .next = &timed};
static uint8_t buffer[CHUNK];
static int ep;

static void timed_out(struct conn *c)
{
	if (!c->next)
		return;
	c->next->prev = c->prev;
	c->prev->next = c->next;
	c->prev = c->next = NULL;
}

static void drop(struct conn *c)
{
	timed_out(c);
	close(c->fd);
	free(c->echo);
	free(c);
}

static void watch(struct conn *c, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = c};

	if (events == c->events)
		return;
	c->events = events;
	epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static bool takes(const struct conn *c)
{
	return c->q.op == OP_UP || c->q.op == OP_BOTH;
}

static bool sends(const struct conn *c)
{
	return c->q.op == OP_DOWN || c->q.op == OP_BOTH;
}

/* What came is enough, or the time is over. */
static void count_up(struct conn *c, uint64_t now)
{
	if (c->counted)
		return;
	c->counted = true;
	c->report = (struct report){.magic = REPORT_MAGIC, .bytes = c->received, .wrong = c->wrong, .at = now};
}

static void begin(struct conn *c)
{
	if (c->q.magic != REQUEST_MAGIC)
		shutdown(c->fd, SHUT_RDWR);
	c->received = c->wrong = c->sent = c->report_sent = 0;
	c->counted = !takes(c);
	if (c->q.deadline) {
		c->next = &timed;
		c->prev = timed.prev;
		timed.prev->next = c;
		timed.prev = c;
	}
	if (c->q.op == OP_NOTHING) {
		c->q_len = 0;
		if (send(c->fd, "", 1, MSG_NOSIGNAL) < 0)
			shutdown(c->fd, SHUT_RDWR);
	}
}

/* Writes while the socket takes it. -> false: the connection is over */
static bool give(struct conn *c, uint64_t now)
{
	bool late = c->q.deadline && now >= c->q.deadline;

	if (c->q_len < sizeof(c->q))
		return true;
	while (sends(c) && !late && (!c->q.bytes || c->sent < c->q.bytes)) {
		size_t n = c->q.bytes && c->q.bytes - c->sent < CHUNK ? (size_t)(c->q.bytes - c->sent) : CHUNK;
		ssize_t k = send(c->fd, pattern_at(c->q.seed, c->sent), n, MSG_NOSIGNAL);

		if (k < 0)
			return errno == EAGAIN;
		c->sent += (uint64_t)k;
		if ((size_t)k < n)
			return true;
		late = c->q.deadline && (now = now_ns()) >= c->q.deadline;
	}
	while (takes(c) && c->counted && c->report_sent < sizeof(c->report)) {
		ssize_t k =
		    send(c->fd, (char *)&c->report + c->report_sent, sizeof(c->report) - c->report_sent, MSG_NOSIGNAL);
		if (k < 0)
			return errno == EAGAIN;
		c->report_sent += (size_t)k;
		if (sends(c) && c->report_sent == sizeof(c->report))
			shutdown(c->fd, SHUT_WR); /* by that the client knows the report from what was sent */
	}
	if (c->echo_len) {
		ssize_t k = send(c->fd, c->echo, c->echo_len, MSG_NOSIGNAL);
		if (k < 0)
			return errno == EAGAIN;
		c->echo_len -= (size_t)k;
		memmove(c->echo, c->echo + k, c->echo_len);
	}
	return true;
}

static bool keep_echo(struct conn *c, const uint8_t *p, size_t n)
{
	ssize_t k = c->echo_len ? 0 : send(c->fd, p, n, MSG_NOSIGNAL);

	if (k < 0 && errno != EAGAIN)
		return false;
	k = k < 0 ? 0 : k;
	if ((size_t)k == n)
		return true;
	if (!c->echo && !(c->echo = malloc(ECHO_ROOM)))
		fail("memory");
	memcpy(c->echo + c->echo_len, p + k, n - (size_t)k);
	c->echo_len += n - (size_t)k;
	return true;
}

static size_t room(const struct conn *c)
{
	if (c->q_len < sizeof(c->q))
		return sizeof(c->q) - c->q_len;
	return c->q.op == OP_ECHO ? ECHO_ROOM - c->echo_len : CHUNK;
}

/* Reads once. -> false: the connection is over */
static bool take(struct conn *c)
{
	size_t most = room(c);
	ssize_t n = most ? recv(c->fd, buffer, most, 0) : 0;

	if (!most || (n < 0 && errno == EAGAIN))
		return true;
	if (n <= 0)
		return false;
	if (c->q_len < sizeof(c->q)) {
		memcpy((char *)&c->q + c->q_len, buffer, (size_t)n);
		c->q_len += (size_t)n;
		if (c->q_len == sizeof(c->q))
			begin(c);
	} else if (c->q.op == OP_ECHO) {
		return keep_echo(c, buffer, (size_t)n);
	} else if (!c->counted) {
		c->wrong += pattern_wrong(c->q.seed, c->received, buffer, (size_t)n);
		c->received += (uint64_t)n;
		if (c->q.bytes && c->received >= c->q.bytes)
			count_up(c, now_ns());
	}
	return true;
}

static uint32_t wanted(const struct conn *c, uint64_t now)
{
	bool late = c->q.deadline && now >= c->q.deadline, busy = c->q_len == sizeof(c->q);
	bool data = sends(c) && !late && (!c->q.bytes || c->sent < c->q.bytes);
	bool rest = takes(c) && c->counted && c->report_sent < sizeof(c->report);

	return (room(c) ? (uint32_t)EPOLLIN : 0) | (busy && (data || rest || c->echo_len) ? (uint32_t)EPOLLOUT : 0);
}

static void serve_one(struct conn *c, uint32_t events)
{
	uint64_t now = now_ns();

	/* A time that is over counts before what has come after it. */
	if (c->q.deadline && c->q_len == sizeof(c->q) && now >= c->q.deadline)
		count_up(c, c->q.deadline);
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !take(c)) || !give(c, now)) {
		drop(c);
		return;
	}
	watch(c, wanted(c, now));
}

static void accept_all(int listener)
{
	int one = 1, fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct conn *c = calloc(1, sizeof(*c));
		struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};

		if (!c)
			fail("memory");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		c->fd = fd;
		c->events = EPOLLIN;
		epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	}
}

/* Those whose time is over send their report. -> milliseconds until the next one, -1: none */
static int end_timed(uint64_t now)
{
	uint64_t first = NEVER;

	for (struct conn *c = timed.next, *next; c != &timed; c = next) {
		next = c->next;
		if (now < c->q.deadline) {
			first = c->q.deadline < first ? c->q.deadline : first;
			continue;
		}
		timed_out(c);
		count_up(c, c->q.deadline);
		if (!give(c, now))
			drop(c);
		else
			watch(c, wanted(c, now));
	}
	return first == NEVER ? -1 : (int)((first - now) / 1000000 + 1);
}

static int listen_on(const char *host, unsigned port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	socklen_t n = sizeof(at);
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};

	inet_pton(AF_INET, host, &at.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 4096) ||
	    getsockname(fd, (struct sockaddr *)&at, &n))
		fail("listen");
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e))
		fail("epoll");
	printf("%u\n", ntohs(at.sin_port));
	fflush(stdout);
	return fd;
}

int serve(const char *host, unsigned port)
{
	int listener = listen_on(host, port);
	struct epoll_event ev[EVENTS];

	for (;;) {
		int n = epoll_wait(ep, ev, EVENTS, end_timed(now_ns()));

		for (int i = 0; i < n; i++) {
			if (ev[i].data.ptr)
				serve_one(ev[i].data.ptr, ev[i].events);
			else
				accept_all(listener);
		}
	}
}
