/* The client's bulk modes: one or many streams up, down or both ways, with or without a ping beside them.
 * One thread, epoll; what cannot go on waits there. */
#include "tests/tools/traffic/traffic.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, OPENING_MAX = 64 };
enum state { CLOSED, CONNECTING, WARMING, WARM, RUNNING, REPORTING, DONE, FAILED };

struct stream {
	int fd;
	enum state state;
	uint32_t events;
	uint64_t seed, sent, received, wrong;
	uint64_t done_at;
	uint8_t tail[sizeof(struct report)]; /* the last bytes that are no data */
	size_t tail_len;
	struct report report;
};

struct ping {
	int fd;
	uint64_t sent_at, next; /* sent_at 0: none is on its way */
	size_t got;
	uint8_t data[PING_BYTES];
	struct samples idle, start, busy;
};

struct bulk {
	const struct options *o;
	bool up, down;
	struct stream *s;
	struct ping ping;
	uint64_t each; /* bytes of a stream, 0: until the deadline */
	uint64_t t0, deadline;
	unsigned running; /* streams that are neither DONE nor FAILED */
	int ep;
};

static uint8_t buffer[CHUNK];

static void watch(struct bulk *b, struct stream *s, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = s};

	if (s->events == events)
		return;
	epoll_ctl(b->ep, s->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &e);
	s->events = events;
}

static void finish(struct bulk *b, struct stream *s, enum state state, uint64_t now)
{
	s->state = state;
	s->done_at = now;
	s->events = 0;
	b->running--;
	if (s->fd >= 0)
		close_hard(s->fd);
	s->fd = -1;
}

/* --- one stream -------------------------------------------------------------------------------------- */

static void stream_dial(struct bulk *b, struct stream *s)
{
	s->fd = dial(b->o, false);
	s->state = CONNECTING;
	if (s->fd < 0)
		finish(b, s, FAILED, now_ns());
	else
		watch(b, s, EPOLLOUT);
}

static void stream_start(struct bulk *b, struct stream *s)
{
	s->state = RUNNING;
	send_request(s->fd, b->up && b->down ? OP_BOTH : b->up ? OP_UP : OP_DOWN, s->seed, b->each, b->deadline);
	watch(b, s, EPOLLIN | (b->up ? (uint32_t)EPOLLOUT : 0));
}

static void stream_opened(struct bulk *b, struct stream *s)
{
	struct request q = {.magic = REQUEST_MAGIC, .op = OP_NOTHING};
	int error = 0;
	socklen_t n = sizeof(error);

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n) || error) {
		finish(b, s, FAILED, now_ns());
	} else if (!b->o->warm) {
		stream_start(b, s);
	} else {
		s->state = WARMING;
		if (send(s->fd, &q, sizeof(q), MSG_NOSIGNAL) != (ssize_t)sizeof(q))
			finish(b, s, FAILED, now_ns());
		else
			watch(b, s, EPOLLIN);
	}
}

static bool report_arrived(struct stream *s, const uint8_t *p, size_t n)
{
	size_t room = sizeof(s->tail), keep = n < room ? n : room;

	if (s->tail_len + keep > room) {
		memmove(s->tail, s->tail + (s->tail_len + keep - room), room - keep);
		s->tail_len = room - keep;
	}
	memcpy(s->tail + s->tail_len, p + n - keep, keep);
	s->tail_len += keep;
	memcpy(&s->report, s->tail, sizeof(s->report));
	return s->tail_len == room && s->report.magic == REPORT_MAGIC;
}

/* A piece has come: data until all of it is there or the time is over, then (up) the report. */
static void stream_take(struct bulk *b, struct stream *s)
{
	ssize_t n = recv(s->fd, buffer, sizeof(buffer), 0);
	uint64_t now = now_ns();
	size_t data = 0;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		finish(b, s, FAILED, now);
		return;
	}
	if (s->state == WARMING) {
		s->state = WARM;
		watch(b, s, EPOLLERR);
		return;
	}
	if (b->down && (!b->deadline || now < b->deadline)) {
		data = b->each && b->each - s->received < (size_t)n ? (size_t)(b->each - s->received) : (size_t)n;
		s->wrong += pattern_wrong(s->seed, s->received, buffer, data);
		s->received += data;
	}
	if (!b->up) {
		if (b->each && s->received >= b->each)
			finish(b, s, DONE, now);
	} else if ((size_t)n > data && report_arrived(s, buffer + data, (size_t)n - data)) {
		finish(b, s, DONE, s->report.at > now ? now : s->report.at);
	}
}

static void stream_give(struct bulk *b, struct stream *s, uint64_t now)
{
	size_t n = CHUNK;
	ssize_t k;

	if (b->each && b->each - s->sent < n)
		n = (size_t)(b->each - s->sent);
	if (!n || (b->deadline && now >= b->deadline)) {
		s->state = REPORTING;
		watch(b, s, EPOLLIN);
		return;
	}
	k = send(s->fd, pattern_at(s->seed, s->sent), n, MSG_NOSIGNAL);
	if (k >= 0)
		s->sent += (uint64_t)k;
	else if (errno != EAGAIN)
		finish(b, s, FAILED, now);
}

static void stream_event(struct bulk *b, struct stream *s, uint32_t events)
{
	if (s->state == CONNECTING) {
		stream_opened(b, s);
		return;
	}
	if (s->state == WARM) { /* only trouble is watched for */
		finish(b, s, FAILED, now_ns());
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && s->fd >= 0)
		stream_take(b, s);
	if (events & EPOLLOUT && s->state == RUNNING)
		stream_give(b, s, now_ns());
}

/* --- the ping beside them ---------------------------------------------------------------------------- */

static void ping_open(struct bulk *b)
{
	struct ping *p = &b->ping;

	p->fd = dial(b->o, true);
	if (p->fd < 0 || !ask_nothing(p->fd))
		fail("ping");
	send_request(p->fd, OP_ECHO, 0, 0, 0);
	memcpy(p->data, pattern_at(7, 0), PING_BYTES);
	for (unsigned i = 0; i < b->o->count; i++) {
		uint64_t t = now_ns();

		if (!write_whole(p->fd, p->data, PING_BYTES) || !read_whole(p->fd, buffer, PING_BYTES))
			fail("ping");
		if (i) /* the first one finds caches cold */
			samples_add(&p->idle, (double)(now_ns() - t) / 1e9);
	}
	fcntl(p->fd, F_SETFL, O_NONBLOCK);
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
	epoll_ctl(b->ep, EPOLL_CTL_ADD, p->fd, &e);
}

static void ping_add(struct bulk *b, uint64_t now)
{
	struct ping *p = &b->ping;
	bool settled = p->sent_at >= b->t0 + (uint64_t)(b->o->settle * 1e9);

	samples_add(settled ? &p->busy : &p->start, (double)(now - p->sent_at) / 1e9);
	p->sent_at = 0;
}

static void ping_event(struct bulk *b)
{
	struct ping *p = &b->ping;
	ssize_t n = recv(p->fd, buffer, PING_BYTES - p->got, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0 || memcmp(buffer, p->data + p->got, (size_t)n) != 0)
		fail("ping differs, or its connection ended");
	p->got += (size_t)n;
	if (p->got < PING_BYTES || !p->sent_at)
		return;
	p->next = now_ns();
	ping_add(b, p->next);
	p->next += (uint64_t)(b->o->gap_ms * 1e6);
}

static void ping_send(struct bulk *b, uint64_t now)
{
	struct ping *p = &b->ping;

	if (!b->o->ping || p->sent_at || now < p->next || now >= b->deadline)
		return;
	if (send(p->fd, p->data, PING_BYTES, MSG_NOSIGNAL) != PING_BYTES)
		fail("ping");
	p->sent_at = now;
	p->got = 0;
}

/* --- all of it --------------------------------------------------------------------------------------- */

static int until(const struct bulk *b, uint64_t now)
{
	uint64_t t = b->o->limit;

	if (b->deadline && b->deadline > now && b->deadline < t)
		t = b->deadline;
	if (b->o->ping && !b->ping.sent_at && b->ping.next < t)
		t = b->ping.next;
	return t <= now ? 0 : (int)((t - now) / 1000000 + 1);
}

static void turn(struct bulk *b)
{
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(b->ep, ev, EVENTS, until(b, now_ns()));

	for (int i = 0; i < n; i++) {
		struct stream *s = ev[i].data.ptr;

		if (!s)
			ping_event(b);
		else if (s->state < DONE)
			stream_event(b, s, ev[i].events);
	}
}

/* Connects and lets each be answered; not more than a few at a time, so that no backlog overflows. */
static void warm_up(struct bulk *b)
{
	unsigned next = 0, opening;

	do {
		opening = 0;
		for (unsigned i = 0; i < next; i++)
			opening += b->s[i].state == CONNECTING || b->s[i].state == WARMING;
		while (next < b->o->streams && opening < OPENING_MAX) {
			stream_dial(b, &b->s[next++]);
			opening++;
		}
		if (opening)
			turn(b);
	} while (opening && now_ns() < b->o->limit);
}

/* Whoever measures may look at what that has cost, and say when it is to go on. */
static void hold(double opened)
{
	printf("{\"opened_s\": %.6f}\n", opened);
	fflush(stdout);
	for (int c = getchar(); c != '\n' && c != EOF;)
		c = getchar();
}

static void run(struct bulk *b)
{
	b->t0 = now_ns();
	b->deadline = b->o->seconds > 0 ? b->t0 + (uint64_t)(b->o->seconds * 1e9) : 0;
	for (unsigned i = 0; i < b->o->streams; i++) {
		struct stream *s = &b->s[i];

		if (s->state == CLOSED)
			stream_dial(b, s);
		else if (s->state == WARM)
			stream_start(b, s);
	}
	while (b->running) {
		uint64_t now = now_ns();

		if (now >= b->o->limit)
			break;
		ping_send(b, now);
		for (unsigned i = 0; b->deadline && now >= b->deadline && i < b->o->streams; i++) {
			if (b->s[i].state < DONE && !b->up)
				finish(b, &b->s[i], b->s[i].state == RUNNING ? DONE : FAILED, b->deadline);
			else if (b->s[i].state == RUNNING)
				stream_give(b, &b->s[i], now);
		}
		if (b->running)
			turn(b);
	}
	if (b->ping.sent_at) /* it has not come back: it took at least so long */
		ping_add(b, now_ns());
}

static int print(struct bulk *b, double opened)
{
	uint64_t up = 0, down = 0, wrong = 0, last = b->t0;
	unsigned failed = 0;

	for (unsigned i = 0; i < b->o->streams; i++) {
		struct stream *s = &b->s[i];

		failed += s->state != DONE;
		up += s->state == DONE ? s->report.bytes : 0;
		down += s->received;
		wrong += s->wrong + (s->state == DONE ? s->report.wrong : 0);
		last = s->done_at > last ? s->done_at : last;
	}
	printf(
	    "{\"mode\": \"%s\", \"streams\": %u, \"seconds\": %.6f, \"up\": %llu, \"down\": %llu, \"wrong\": %llu, \"failed\": %u",
	    b->o->mode, b->o->streams, (double)(last - b->t0) / 1e9, (unsigned long long)up, (unsigned long long)down,
	    (unsigned long long)wrong, failed);
	if (b->o->warm)
		printf(", \"opened_s\": %.6f", opened);
	samples_print(&b->ping.idle, "idle");
	samples_print(&b->ping.start, "start");
	samples_print(&b->ping.busy, "busy");
	printf("}\n");
	return wrong ? 3 : 0;
}

int run_bulk(const struct options *o)
{
	struct bulk b = {.o = o, .running = o->streams};
	uint64_t began = now_ns();
	double opened = 0;
	int code;

	b.up = strcmp(o->mode, "down") != 0;
	b.down = strcmp(o->mode, "up") != 0;
	b.each = o->bytes / o->streams;
	b.s = calloc(o->streams, sizeof(*b.s));
	b.ep = epoll_create1(EPOLL_CLOEXEC);
	if (!b.s || b.ep < 0)
		fail("memory");
	for (unsigned i = 0; i < o->streams; i++) {
		b.s[i].fd = -1;
		b.s[i].seed = i + 1 + (began >> 20) % 1000;
	}
	pattern_at(0, 0);
	if (o->ping)
		ping_open(&b);
	if (o->warm) {
		warm_up(&b);
		opened = (double)(now_ns() - began) / 1e9;
		if (o->hold)
			hold(opened);
	}
	run(&b);
	code = print(&b, opened);
	free(b.s);
	return code;
}
