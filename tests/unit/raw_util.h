/* A peer made by hand: a bare channel that sends what it is told and keeps what comes. */
#ifndef RAW_UTIL_H
#define RAW_UTIL_H
#include "tests/unit/sess_util.h"
#include "lib/message.h"
#include "lib/num.h"
#include "lib/smux.h"
#include "lib/wire.h"

struct raw {
	struct tnl_channel *ch;
	uint64_t now;
	struct end e; /* the session under test */
	int n;
	struct {
		uint32_t ptype;
		uint64_t flags;
		char *p;
		size_t len;
	} got[512];
	struct tnl_buf out;	/* Output payloads one after the other */
	int states;		/* agent_session_state messages */
	bool deaf;		/* sends no acks */
	enum tnl_digest digest; /* what it takes besides SHA-256 */
};

static inline int raw_deliver(void *ctx, const struct tnl_msg *m, uint64_t now)
{
	struct raw *r = ctx;
	(void)now;
	if (r->n == 512) /* enough to look at; Output is in `out` as well */
		goto out;
	r->got[r->n].ptype = m->ptype;
	r->got[r->n].flags = m->flags;
	r->got[r->n].p = calloc(1, m->plen + 1);
	memcpy(r->got[r->n].p, m->payload, m->plen);
	r->got[r->n++].len = m->plen;
out:
	if (m->ptype == TNL_PT_OUTPUT)
		tnl_buf_put(&r->out, m->payload, m->plen);
	return 0;
}

/* c: of the session under test; the raw peer takes the other role. */
static inline void raw_init(struct raw *r, struct tnl_session_config *c)
{
	memset(r, 0, sizeof(*r));
	r->now = 1000 * SEC;
	r->e.now = &r->now;
	r->e.accept = true;
	r->e.default_take = SIZE_MAX;
	r->e.exit_code = -1;
	tnl_buf_init(&r->e.tap, 64u << 20);
	tnl_buf_init(&r->out, 64u << 20);
	c->ctx = &r->e;
	r->e.s = tnl_session_new(c, r->now);
	struct tnl_channel_config cc = {
	    .send_type = c->agent ? TNL_MT_INPUT : TNL_MT_OUTPUT,
	    .recv_type = c->agent ? TNL_MT_OUTPUT : TNL_MT_INPUT,
	    .memory_max = 16u << 20,
	    .deliver = raw_deliver,
	    .ctx = r,
	};
	r->ch = tnl_channel_new(&cc, r->now);
	assert_non_null(r->e.s);
	assert_non_null(r->ch);
	tnl_channel_link_up(r->ch, r->now);
	tnl_session_link_up(r->e.s, r->now);
}

static inline void raw_fini(struct raw *r)
{
	assert_int_equal(r->e.events_after_close, 0);
	tnl_session_free(r->e.s);
	tnl_channel_free(r->ch);
	for (int i = 0; i < r->n; i++)
		free(r->got[i].p);
	for (int i = 0; i < r->e.nrec; i++) {
		tnl_buf_fini(&r->e.rec[i].in);
		tnl_buf_fini(&r->e.rec[i].out);
	}
	tnl_buf_fini(&r->e.tap);
	tnl_buf_fini(&r->out);
	assert_int_equal(tnl_alloc_live(), 0);
}

static inline void raw_move(struct raw *r)
{
	const uint8_t *p;
	size_t n;
	int moved;
	do {
		moved = 0;
		r->now += 1000;
		end_pump(&r->e);
		while (tnl_session_pull(r->e.s, r->now, &p, &n) == 1) {
			struct tnl_msg m;
			assert_int_equal(tnl_msg_decode_agreed(p, n, r->digest, &m, NULL), 0);
			r->states += m.type == TNL_MT_SESSION_STATE;
			assert_int_equal(tnl_channel_feed(r->ch, &m, r->now), 0);
			moved++;
			end_pump(&r->e);
		}
		while (!r->deaf && tnl_channel_pull(r->ch, r->now, &p, &n) == 1) {
			(void)!tnl_session_feed(r->e.s, p, n, r->now);
			moved++;
		}
	} while (moved);
}

static inline void raw_send(struct raw *r, uint32_t ptype, const void *p, size_t n)
{
	uint8_t *b = tnl_channel_reserve(r->ch, n);
	assert_non_null(b);
	memcpy(b, p, n);
	assert_int_equal(tnl_channel_commit(r->ch, ptype, n, 0, r->now), 0);
	raw_move(r);
}

static inline void raw_text(struct raw *r, uint32_t ptype, const char *s)
{
	raw_send(r, ptype, s, strlen(s));
}

static inline size_t raw_frame(uint8_t *p, int version, int cmd, uint32_t id, const void *data, size_t n)
{
	struct tnl_smux_frame f = {(uint8_t)version, (uint8_t)cmd, (uint16_t)n, id};
	tnl_smux_write(p, &f);
	if (n)
		memcpy(p + TNL_SMUX_HDR, data, n);
	return TNL_SMUX_HDR + n;
}

static inline void raw_smux(struct raw *r, int version, int cmd, uint32_t id, const void *data, size_t n)
{
	uint8_t *b = malloc(TNL_SMUX_HDR + n);
	raw_send(r, TNL_PT_OUTPUT, b, raw_frame(b, version, cmd, id, data, n));
	free(b);
}

/* Takes the next smux frame from what the session sent; false: none. */
static inline bool raw_next_frame(struct raw *r, struct tnl_smux_frame *f, const uint8_t **data)
{
	if (tnl_buf_len(&r->out) < TNL_SMUX_HDR)
		return false;
	tnl_smux_read(tnl_buf_data(&r->out), f);
	assert_true(tnl_buf_len(&r->out) >= TNL_SMUX_HDR + f->len);
	*data = tnl_buf_data(&r->out) + TNL_SMUX_HDR;
	tnl_buf_consume(&r->out, TNL_SMUX_HDR + f->len);
	return true;
}

static inline void raw_expect_frame(struct raw *r, int version, int cmd, uint32_t id, const void *data, size_t n)
{
	struct tnl_smux_frame f;
	const uint8_t *d;
	assert_true(raw_next_frame(r, &f, &d));
	assert_int_equal(f.version, version);
	assert_int_equal(f.cmd, cmd);
	assert_int_equal(f.id, id);
	assert_int_equal(f.len, n);
	if (n && data)
		assert_memory_equal(d, data, n);
}

static inline void raw_expect_quiet(struct raw *r)
{
	assert_int_equal(tnl_buf_len(&r->out), 0);
}

static inline void raw_advance(struct raw *r, uint64_t ns)
{
	uint64_t until = r->now + ns;
	raw_move(r);
	while (r->now < until) {
		uint64_t a = tnl_session_deadline(r->e.s), b = tnl_channel_deadline(r->ch), t = TNL_MIN(a, b);
		if (t > until) {
			r->now = until;
		} else {
			r->now = TNL_MAX(r->now, t);
			tnl_session_expire(r->e.s, r->now);
			(void)!tnl_channel_expire(r->ch, r->now);
		}
		raw_move(r);
	}
}

static inline struct rec *raw_open(struct raw *r)
{
	int err = -1;
	struct rec *x = end_rec(&r->e, NULL);
	x->st = tnl_stream_open(r->e.s, x, r->now, &err);
	assert_int_equal(err, 0);
	return x;
}

#define STOCK_REQUEST(version)                                                                                         \
	"{\"AgentVersion\":\"" version "\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\","               \
	"\"ActionParameters\":{\"SessionType\":\"Port\",\"Properties\":{\"localPortNumber\":\"0\","                    \
	"\"portNumber\":\"17007\",\"type\":\"LocalPortForwarding\"}}}]}"
#define STOCK_RESPONSE(version)                                                                                        \
	"{\"ClientVersion\":\"" version "\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\","              \
	"\"ActionStatus\":1,\"ActionResult\":null,\"Error\":\"\"}],\"Errors\":null}"
#define STOCK_COMPLETE "{\"HandshakeTimeToComplete\":12124072,\"CustomerMessage\":\"\"}"
#define OWN_REQUEST                                                                                                    \
	"{\"AgentVersion\":\"3.3.987.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\","                 \
	"\"ActionParameters\":{\"SessionType\":\"Port\",\"Properties\":{\"type\":\"LocalPortForwarding\"}}},"          \
	"{\"ActionType\":\"TunneldCapabilities\",\"ActionParameters\":{\"Version\":1,\"MaxPayload\":32768,\"Smux\":2," \
	"\"HalfClose\":true,\"Digest\":true,\"Encrypt\":true}}]}"
#define OWN_RESPONSE                                                                                                         \
	"{\"ClientVersion\":\"1.2.764.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"   \
	"\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"TunneldCapabilities\",\"ActionStatus\":1,\"ActionResult\":" \
	"{\"Version\":1,\"MaxPayload\":32768,\"Smux\":2,\"HalfClose\":true,\"Digest\":true,\"Encrypt\":true},"               \
	"\"Error\":\"\"}],\"Errors\":null}"

/* The session is an agent, the raw peer a client that answers `response`. */
static inline void raw_agent(struct raw *r, struct tnl_session_config *c, const char *response)
{
	raw_init(r, c);
	raw_move(r);
	assert_int_equal(r->n, 1);
	assert_int_equal(r->got[0].ptype, TNL_PT_HANDSHAKE_REQUEST);
	r->digest = strstr(response, "\"CRC32C\"") ? TNL_DIGEST_CRC32C : TNL_DIGEST_SHA256;
	raw_text(r, TNL_PT_HANDSHAKE_RESPONSE, response);
	assert_int_equal(r->e.ready, 1);
	tnl_buf_reset(&r->out);
}

/* The session is a client, the raw peer an agent that asks `request`. */
static inline void raw_client(struct raw *r, struct tnl_session_config *c, const char *request)
{
	raw_init(r, c);
	raw_text(r, TNL_PT_HANDSHAKE_REQUEST, request);
	assert_int_equal(r->n, 1);
	assert_int_equal(r->got[0].ptype, TNL_PT_HANDSHAKE_RESPONSE);
	raw_text(r, TNL_PT_HANDSHAKE_COMPLETE, STOCK_COMPLETE);
	assert_int_equal(r->e.ready, 1);
	raw_advance(r, 6 * MS);
	tnl_buf_reset(&r->out);
}

static inline void channel_closed(struct pair *p, struct end *e, const char *output)
{
	uint8_t buf[1024];
	struct tnl_buf b;
	struct tnl_channel_closed cc = {.message_id = (char[]){"m"},
					.session_id = (char[]){"s"},
					.destination_id = (char[]){"d"}};
	cc.output = (char *)(uintptr_t)output;
	tnl_buf_init(&b, 800);
	assert_int_equal(tnl_channel_closed_write(&b, &cc), 0);
	struct tnl_msg m = {.type = TNL_MT_CHANNEL_CLOSED,
			    .schema = 1,
			    .created_ms = 1,
			    .payload = tnl_buf_data(&b),
			    .plen = (uint32_t)tnl_buf_len(&b)};
	size_t n = tnl_msg_encode(buf, &m);
	(void)!tnl_session_feed(e->s, buf, n, p->now);
	tnl_buf_fini(&b);
}

#endif
