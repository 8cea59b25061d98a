/* Two channels over a link that the input steers: it delays, drops, doubles and
 * swaps messages, cuts, pauses, makes the reader stop. What arrives is what was
 * sent, in order; memory stays under its maximum; once the link is sound again
 * everything arrives. An odd first byte makes the peer hostile as well: forged
 * acks and wild numbers may cost the session its data, but nothing else. */
#include "lib/alloc.h"
#include "lib/channel.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#define MS 1000000ull
#define QUEUE 64
#define CAP (1u << 18)

struct end {
	struct tnl_channel *ch;
	unsigned got, sent, room;
	struct {
		uint8_t *p;
		size_t n;
	} q[QUEUE]; /* on their way to this end */
	unsigned count;
};
struct world {
	struct end e[2];
	uint64_t now;
	bool hostile, over;
	const uint8_t *p;
	size_t n;
};

static uint8_t next(struct world *w)
{
	if (!w->n)
		return 0;
	w->n--;
	return *w->p++;
}

static uint64_t wall(void *ctx)
{
	(void)ctx;
	return 1;
}

static void want(bool ok)
{
	if (!ok)
		abort();
}

/* Message k carries k in its first bytes and has a length that follows from k. */
static size_t length_of(unsigned k)
{
	return 4 + (k * 2654435761u >> 20) % (k % 7 ? 200 : 5000);
}

static int deliver(void *ctx, const struct tnl_msg *m, uint64_t now)
{
	struct end *e = ctx;
	(void)now;
	if (!e->room)
		return TNL_EAGAIN;
	if (e->room != UINT_MAX)
		e->room--;
	unsigned k = 0;
	if (m->plen >= 4)
		memcpy(&k, m->payload, 4);
	if (k == e->got && m->plen == length_of(k))
		for (size_t i = 4; i < m->plen; i++)
			want(m->payload[i] == (uint8_t)(k + i));
	else if (m->plen != 3) /* a forged one has three bytes */
		abort();
	e->got++;
	return 0;
}

static void produce(struct world *w, struct end *e)
{
	size_t n = length_of(e->sent);
	uint8_t *b = tnl_channel_reserve(e->ch, n + 3000 * (e->sent % 3));
	if (!b)
		return;
	memcpy(b, &e->sent, 4);
	for (size_t i = 4; i < n; i++)
		b[i] = (uint8_t)(e->sent + i);
	want(tnl_channel_commit(e->ch, TNL_PT_OUTPUT, n, 0, w->now) == 0);
	e->sent++;
}

static void carry(struct world *w, struct end *from, struct end *to)
{
	const uint8_t *p;
	size_t n;
	while (to->count < QUEUE && tnl_channel_pull(from->ch, w->now, &p, &n) == 1) {
		to->q[to->count].p = malloc(n);
		memcpy(to->q[to->count].p, p, n);
		to->q[to->count++].n = n;
	}
}

static void drop(struct end *e, unsigned i)
{
	free(e->q[i].p);
	memmove(&e->q[i], &e->q[i + 1], (e->count - i - 1) * sizeof(e->q[0]));
	e->count--;
}

static void arrive(struct world *w, struct end *e, unsigned i, bool keep)
{
	struct tnl_msg m;
	want(tnl_msg_decode(e->q[i].p, e->q[i].n, &m, NULL) == 0);
	if (tnl_channel_feed(e->ch, &m, w->now))
		w->over = true;
	if (!keep)
		drop(e, i);
}

static void forge(struct world *w, struct end *e)
{
	int64_t seq = (int8_t)next(w);
	if (seq > 100)
		seq = INT64_MAX - seq;
	char text[TNL_ACK_MAX];
	struct tnl_ack a = {.type = TNL_MT_OUTPUT, .seq = seq};
	struct tnl_msg m = {.type = (enum tnl_mtype)(next(w) % TNL_MT_COUNT),
			    .seq = seq,
			    .payload = (const uint8_t *)"abc",
			    .plen = 3};
	if (m.type == TNL_MT_ACK) {
		m.payload = (const uint8_t *)text;
		m.plen = (uint32_t)tnl_ack_write(text, &a);
	}
	if (tnl_channel_feed(e->ch, &m, w->now))
		w->over = true;
}

static void links(struct world *w, bool up)
{
	for (int i = 0; i < 2; i++) {
		while (w->e[i].count)
			drop(&w->e[i], 0);
		if (up)
			tnl_channel_link_up(w->e[i].ch, w->now);
		else
			tnl_channel_link_down(w->e[i].ch, w->now);
	}
}

static void time_passes(struct world *w, uint64_t ns)
{
	w->now += ns;
	for (int i = 0; i < 2; i++)
		if (tnl_channel_expire(w->e[i].ch, w->now))
			w->over = true;
}

static void step(struct world *w)
{
	uint8_t op = next(w), arg = next(w);
	struct end *e = &w->e[op >> 7], *o = &w->e[!(op >> 7)];
	unsigned i = e->count ? arg % e->count : 0;
	struct tnl_msg pub = {.type = arg & 1 ? TNL_MT_PAUSE_PUBLICATION : TNL_MT_START_PUBLICATION};
	switch (op & 15) {
	case 0:
	case 1:
		for (unsigned k = 0; k <= arg % 16u; k++)
			produce(w, e);
		break;
	case 2:
		if (tnl_channel_can_send(e->ch, w->now))
			produce(w, e);
		break;
	case 3:
	case 4:
		carry(w, e, o);
		break;
	case 5:
		while (e->count && !w->over)
			arrive(w, e, 0, false);
		break;
	case 6:
	case 7:
		if (e->count)
			arrive(w, e, i, op & 64);
		break;
	case 8:
		if (e->count)
			drop(e, i);
		break;
	case 9:
		time_passes(w, arg * MS);
		break;
	case 10:
		time_passes(w, arg * 50 * MS);
		break;
	case 11:
		links(w, arg & 1);
		break;
	case 12:
		want(tnl_channel_feed(e->ch, &pub, w->now) == 0);
		break;
	case 13:
		e->room = arg & 1 ? UINT_MAX : arg >> 1;
		if (tnl_channel_ready(e->ch, w->now))
			w->over = true;
		break;
	case 14:
		if (w->hostile)
			forge(w, e);
		break;
	default:
		(void)!tnl_channel_send_unnumbered(e->ch, TNL_MT_SESSION_STATE, "{}", 2, w->now);
	}
}

static void check(const struct end *e)
{
	struct tnl_channel_stats st;
	tnl_channel_stats(e->ch, &st);
	want(st.memory == tnl_channel_memory(e->ch));
	want(st.memory <= CAP + 256 * 1024 + 131072); /* rings and the ack queue beside the messages */
	want(st.inflight_msgs <= TNL_CHANNEL_CAP && st.reorder_msgs <= TNL_CHANNEL_CAP);
	want((st.inflight_msgs == 0) == (st.inflight_bytes == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct world w = {.p = p, .n = n};
	uint8_t first = next(&w);
	w.hostile = first & 1;
	long live = tnl_alloc_live();
	for (int i = 0; i < 2; i++) {
		struct tnl_channel_config c = {.send_type = i ? TNL_MT_INPUT : TNL_MT_OUTPUT,
					       .recv_type = i ? TNL_MT_OUTPUT : TNL_MT_INPUT,
					       .memory_max = CAP,
					       .message_rate = first & 2 ? 900 : 0,
					       .stock_peer_payload = first & 4,
					       .wall_ms = wall,
					       .deliver = deliver,
					       .ctx = &w.e[i]};
		w.e[i].room = UINT_MAX;
		w.e[i].ch = tnl_channel_new(&c, 0);
		want(w.e[i].ch != NULL);
	}
	links(&w, true);
	while (w.n && !w.over) {
		step(&w);
		check(&w.e[0]);
		check(&w.e[1]);
	}
	want(w.hostile || !w.over);
	if (!w.hostile) { /* a sound link again: all arrives */
		links(&w, true);
		for (int i = 0; i < 2; i++) {
			w.e[i].room = UINT_MAX;
			want(tnl_channel_ready(w.e[i].ch, w.now) == 0);
		}
		for (unsigned turns = 0; !tnl_channel_idle(w.e[0].ch) || !tnl_channel_idle(w.e[1].ch); turns++) {
			want(turns < 100000);
			for (int i = 0; i < 2; i++) {
				carry(&w, &w.e[i], &w.e[!i]);
				while (w.e[!i].count)
					arrive(&w, &w.e[!i], 0, false);
			}
			time_passes(&w, 5 * MS);
			want(!w.over);
		}
		want(w.e[0].got == w.e[1].sent && w.e[1].got == w.e[0].sent);
	}
	for (int i = 0; i < 2; i++) {
		while (w.e[i].count)
			drop(&w.e[i], 0);
		tnl_channel_free(w.e[i].ch);
	}
	want(tnl_alloc_live() == live);
	return 0;
}
