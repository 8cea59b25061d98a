/* What the traffic's server and clients share: pattern, sockets, samples. */
#include "tests/tools/traffic/traffic.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A prime: whatever is left out, doubled or moved by a buffer's length is noticed. */
enum { PERIOD = 65521 };

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

const uint8_t *pattern_at(uint64_t seed, uint64_t place)
{
	static uint8_t block[PERIOD + CHUNK];
	static bool made;

	if (!made) {
		uint64_t x = 0x9e3779b97f4a7c15u;

		for (size_t i = 0; i < sizeof(block); i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			block[i] = i < PERIOD ? (uint8_t)(x >> 32) : block[i - PERIOD];
		}
		made = true;
	}
	return block + (seed * 7919 + place) % PERIOD;
}

uint64_t pattern_wrong(uint64_t seed, uint64_t place, const uint8_t *p, size_t n)
{
	const uint8_t *right = pattern_at(seed, place);
	uint64_t wrong = 0;

	if (memcmp(p, right, n) == 0)
		return 0;
	for (size_t i = 0; i < n; i++)
		wrong += p[i] != right[i];
	return wrong;
}

void fail(const char *what)
{
	printf("{\"error\": \"%s: %s\"}\n", what, strerror(errno));
	fflush(stdout);
	exit(1);
}

/* From one of a few addresses of loopback: the side that closes first keeps the port for a second, and the kernel gives
 * out half of an address's ports without a long search, some 14,000.  Few, so that logs have few peers. */
static void spread(int fd)
{
	static uint32_t last;
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001u + last++ % 4u)};
	int one = 1;

	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)))
		fail("bind");
}

int dial(const struct options *o, bool wait)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->port)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK), 0);

	if (fd < 0)
		fail("socket");
	if (inet_pton(AF_INET, o->host, &to.sin_addr) != 1)
		fail(o->host);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!wait && ntohl(to.sin_addr.s_addr) >> 24 == 127)
		spread(fd);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

bool write_whole(int fd, const void *p, size_t n)
{
	const char *at = p;

	while (n) {
		ssize_t k = send(fd, at, n, MSG_NOSIGNAL);
		if (k < 0)
			return false;
		at += k;
		n -= (size_t)k;
	}
	return true;
}

bool read_whole(int fd, void *p, size_t n)
{
	char *at = p;

	while (n) {
		ssize_t k = recv(fd, at, n, 0);
		if (k <= 0)
			return false;
		at += k;
		n -= (size_t)k;
	}
	return true;
}

bool ask_nothing(int fd)
{
	struct request q = {.magic = REQUEST_MAGIC, .op = OP_NOTHING};
	char answer;

	return write_whole(fd, &q, sizeof(q)) && read_whole(fd, &answer, 1);
}

void send_request(int fd, enum op op, uint64_t seed, uint64_t bytes, uint64_t deadline)
{
	struct request q = {
	    .magic = REQUEST_MAGIC, .op = (uint32_t)op, .seed = seed, .bytes = bytes, .deadline = deadline};

	/* Into an empty socket buffer: it fits, also where the descriptor does not block. */
	if (send(fd, &q, sizeof(q), MSG_NOSIGNAL) != (ssize_t)sizeof(q))
		fail("request");
}

void close_hard(int fd)
{
	struct linger now = {1, 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

void samples_add(struct samples *s, double v)
{
	if (s->n == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 1024;
		s->v = realloc(s->v, s->cap * sizeof(*s->v));
		if (!s->v)
			fail("memory");
	}
	s->v[s->n++] = v;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

void samples_print(struct samples *s, const char *name)
{
	if (!s->n)
		return;
	qsort(s->v, s->n, sizeof(*s->v), compare);
	printf(", \"%s\": {\"count\": %zu, \"min\": %.9f, \"median\": %.9f, \"p95\": %.9f, \"max\": %.9f}", name, s->n,
	       s->v[0], s->v[s->n / 2], s->v[s->n * 95 / 100], s->v[s->n - 1]);
	free(s->v);
	*s = (struct samples){0};
}
