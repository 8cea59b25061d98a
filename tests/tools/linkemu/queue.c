/* One direction of a link: a thread that reads what the kernel hands over, loses some of it, lets it wait and writes it
 * at the other end.  What segmentation offload made is split as far as loss and rate ask for. */
#include "tests/tools/linkemu/linkemu.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 65536, HEAD_MAX = VNET + 120, QUEUE_MIN = 32768, SMALL = 2048, LARGE = VNET + 65536 + 64, TURN = 64 };

/* Bytes of one read; the pieces that it was split into share it. */
struct buffer {
	struct buffer *next; /* while it is free */
	unsigned refs;
	bool large;
	uint8_t data[];
};

/* What is written at once: a header of its own and a part of a buffer. */
struct piece {
	uint64_t due;
	struct buffer *body; /* or NULL: all of it stands in head */
	uint32_t body_at, body_len, head_len, segments;
	uint8_t head[HEAD_MAX];
};

/* A read that has been understood. */
struct packet {
	struct buffer *b;
	size_t len;	       /* with the virtio header */
	size_t headers;	       /* virtio, IP, TCP */
	size_t mss, segments;  /* 0, 1: is not split */
	size_t ip_len, l4_len; /* of the headers */
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct buffer *buffer_get(struct direction *d, bool large)
{
	struct buffer *b = d->spare[large];

	if (b)
		d->spare[large] = b->next;
	else if (!(b = malloc(sizeof(*b) + (large ? LARGE : SMALL))))
		fail("memory");
	b->refs = 1;
	b->large = large;
	return b;
}

static void buffer_drop(struct direction *d, struct buffer *b)
{
	if (!b || --b->refs)
		return;
	b->next = d->spare[b->large];
	d->spare[b->large] = b;
}

/* --- the queue --------------------------------------------------------------------------------------- */

static bool draw_loss(struct direction *d, unsigned per_10000)
{
	if (!per_10000)
		return false;
	d->seed ^= d->seed << 13;
	d->seed ^= d->seed >> 7;
	d->seed ^= d->seed << 17;
	return (uint32_t)(d->seed >> 32) % 10000 < per_10000;
}

/* Bytes before the bottleneck: what is on its way behind it (the delay) is no queue. */
static bool queue_has_room(const struct direction *d, size_t n, uint64_t speed, uint64_t now)
{
	uint64_t most = rules.queue_max;

	if (d->tail - d->head == SLOTS)
		return false;
	if (!speed)
		return true;
	if (!most) {
		most = (uint64_t)((double)speed * 2 * (double)rules.delay_ns / 1e9);
		most = most < QUEUE_MIN ? QUEUE_MIN : most;
	}
	return (double)(d->free_at - now) * (double)speed / 1e9 + (double)n <= (double)most;
}

/* A place at the end of the queue for n bytes on the wire, or NULL: it overflows. */
static struct piece *queue_add(struct direction *d, size_t n, size_t segments, uint64_t now)
{
	uint64_t speed = rules.rate;
	struct piece *p;

	if (d->free_at < now)
		d->free_at = now;
	if (!queue_has_room(d, n, speed, now)) {
		d->overflowed += segments;
		return NULL;
	}
	if (speed)
		d->free_at += (uint64_t)n * 1000000000u / speed;
	p = &d->ring[d->tail++ % SLOTS];
	p->due = d->free_at + rules.delay_ns;
	p->segments = (uint32_t)segments;
	return p;
}

static uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static uint32_t sum16(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint32_t s = 0;

	for (size_t i = 0; i + 1 < n; i += 2)
		s += (uint32_t)b[i] << 8 | b[i + 1];
	return s;
}

/* The headers of the segments first … first + count of a packet: lengths, numbers, flags and sums are theirs. */
static void write_head(struct piece *p, const struct packet *k, size_t first, size_t count)
{
	struct virtio_net_hdr v;
	struct iphdr ip;
	struct tcphdr tcp;
	uint8_t *at = p->head + VNET;
	size_t l4 = k->l4_len + p->body_len;

	memcpy(p->head, k->b->data, k->headers);
	memcpy(&v, p->head, sizeof(v));
	memcpy(&ip, at, sizeof(ip));
	memcpy(&tcp, at + k->ip_len, sizeof(tcp));
	v.hdr_len =
	    (uint16_t)(k->headers - VNET); /* it was how much lay in one place, which may be more than this piece */
	if (count == 1)
		v.gso_type = VIRTIO_NET_HDR_GSO_NONE, v.gso_size = 0;
	ip.tot_len = htons((uint16_t)(k->ip_len + l4));
	ip.id = htons((uint16_t)(ntohs(ip.id) + first));
	tcp.seq = htonl(ntohl(tcp.seq) + (uint32_t)(first * k->mss));
	if (first + count < k->segments)
		tcp.fin = tcp.psh = 0;
	if (first)
		tcp.res2 &= 1; /* CWR goes with the first */
	ip.check = 0;
	/* The kernel leaves a sum to the device: the field has that of the pseudo header only. */
	tcp.check = htons(fold(sum16(&ip.saddr, 8) + IPPROTO_TCP + (uint32_t)l4));
	memcpy(at, &ip, sizeof(ip));
	ip.check = htons((uint16_t)~fold(sum16(at, k->ip_len)));
	memcpy(at, &ip, sizeof(ip));
	memcpy(at + k->ip_len, &tcp, sizeof(tcp));
	memcpy(p->head, &v, sizeof(v));
}

static void queue_segments(struct direction *d, const struct packet *k, size_t first, size_t count, uint64_t now)
{
	size_t at = first * k->mss, payload = k->len - k->headers;
	size_t n = first + count == k->segments ? payload - at : count * k->mss;
	struct piece *p = queue_add(d, n + count * (k->headers - VNET), count, now);

	if (!p)
		return;
	p->body = k->b;
	k->b->refs++;
	p->body_at = (uint32_t)(k->headers + at);
	p->body_len = (uint32_t)n;
	p->head_len = (uint32_t)k->headers;
	write_head(p, k, first, count);
}

/* How many segments may be a piece: with a rate, what passes in a quarter of a millisecond. */
static size_t piece_segments(const struct packet *k)
{
	uint64_t speed = rules.rate;
	size_t n = speed ? speed / 4000 / k->mss : k->segments;

	return n ? n : 1;
}

/* Runs of segments that are not lost become pieces. */
static void split(struct direction *d, const struct packet *k, uint64_t now)
{
	size_t first = 0, most = piece_segments(k);
	unsigned per_10000 = (unsigned)rules.loss;

	for (size_t i = 0; i < k->segments; i++) {
		bool gone = draw_loss(d, per_10000);

		if (gone || i - first == most) {
			if (i > first)
				queue_segments(d, k, first, i - first, now);
			first = gone ? i + 1 : i;
		}
		d->lost += gone;
	}
	if (first < k->segments)
		queue_segments(d, k, first, k->segments - first, now);
}

static void queue_whole(struct direction *d, const struct packet *k, uint64_t now)
{
	struct piece *p;
	struct buffer *b;

	if (draw_loss(d, (unsigned)rules.loss)) {
		d->lost++;
		return;
	}
	p = queue_add(d, k->len - VNET, 1, now);
	if (!p)
		return;
	p->body = NULL;
	p->body_at = p->body_len = 0;
	p->head_len = (uint32_t)(k->len < HEAD_MAX ? k->len : HEAD_MAX);
	memcpy(p->head, k->b->data, p->head_len);
	if (k->len <= HEAD_MAX)
		return;
	p->body_at = HEAD_MAX;
	p->body_len = (uint32_t)(k->len - HEAD_MAX);
	if (k->len > SMALL) {
		p->body = k->b;
		k->b->refs++;
		return;
	}
	b = p->body = buffer_get(d, false);
	memcpy(b->data, k->b->data, k->len);
}

/* Finds the headers; false: nothing that can be split. */
static bool is_super(struct packet *k)
{
	struct virtio_net_hdr v;
	struct iphdr ip;
	struct tcphdr tcp;
	const uint8_t *at = k->b->data + VNET;

	memcpy(&v, k->b->data, sizeof(v));
	if ((v.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) != VIRTIO_NET_HDR_GSO_TCPV4 || !v.gso_size)
		return false;
	memcpy(&ip, at, sizeof(ip));
	k->ip_len = ip.ihl * 4u;
	memcpy(&tcp, at + k->ip_len, sizeof(tcp));
	k->l4_len = tcp.doff * 4u;
	k->headers = VNET + k->ip_len + k->l4_len;
	if (ip.version != 4 || k->headers > HEAD_MAX || k->headers >= k->len)
		return false;
	k->mss = v.gso_size;
	k->segments = (k->len - k->headers + k->mss - 1) / k->mss;
	return true;
}

static void take(struct direction *d, uint64_t now)
{
	for (int i = 0; i < TURN; i++) {
		struct packet k = {.b = buffer_get(d, true), .segments = 1};
		ssize_t n = read(d->from, k.b->data, LARGE);

		if (n > VNET) {
			bool super;

			k.len = (size_t)n;
			super = is_super(&k);
			d->reads++;
			d->passed += k.segments;
			d->bytes += (size_t)n - VNET;
			if (rules.down)
				d->lost += k.segments;
			else if (super)
				split(d, &k, now);
			else
				queue_whole(d, &k, now);
		}
		buffer_drop(d, k.b);
		if (n <= 0)
			return;
	}
}

/* -> when it wants to be called again */
static uint64_t give(struct direction *d, uint64_t now)
{
	while (d->head != d->tail) {
		struct piece *p = &d->ring[d->head % SLOTS];
		struct iovec v[2] = {{p->head, p->head_len}};

		if (p->due > now)
			return p->due;
		if (p->body)
			v[1] = (struct iovec){p->body->data + p->body_at, p->body_len};
		if (writev(d->to, v, p->body ? 2 : 1) < 0) {
			if (errno == EAGAIN)
				return now + 1000000;
			d->overflowed += p->segments;
		}
		buffer_drop(d, p->body);
		d->head++;
	}
	return UINT64_MAX;
}

static void *carry(void *arg)
{
	struct direction *d = arg;
	uint64_t woken;

	prctl(PR_SET_TIMERSLACK, 1000);
	for (;;) {
		uint64_t now = now_ns(), next = give(d, now);
		struct pollfd p[2] = {{d->from, POLLIN, 0}, {d->wake, POLLIN, 0}};
		struct timespec ts = {1, 0};

		if (next != UINT64_MAX) {
			uint64_t left = next > now ? next - now : 0;
			ts.tv_sec = (time_t)(left / 1000000000u);
			ts.tv_nsec = (long)(left % 1000000000u);
		}
		if (ppoll(p, 2, &ts, NULL) < 0 && errno != EINTR)
			fail("ppoll");
		if (p[1].revents && read(d->wake, &woken, sizeof(woken)) < 0 && errno != EAGAIN)
			fail("eventfd");
		take(d, now_ns());
	}
	return NULL;
}

void direction_start(struct direction *d, uint64_t seed)
{
	pthread_t t;

	d->seed = seed;
	d->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	d->ring = malloc(sizeof(struct piece) * SLOTS);
	if (d->wake < 0 || !d->ring || pthread_create(&t, NULL, carry, d))
		fail("thread");
}
