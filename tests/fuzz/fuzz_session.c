/* A whole session with a hostile peer, in either role and every mode. Byte 0: role and mode; then steps of an
 * op byte, a length byte (units of 1 or of 64 bytes) and data. */
#include "tests/fuzz/session_rig.h"
#include "lib/num.h"

static const char *const types[] = {"Port", "Port", "Standard_Stream", "NonInteractiveCommands"};
static const char *const props[] = {"{\"type\":\"LocalPortForwarding\"}", "{}", NULL,
				    "{\"separateOutputStream\":\"true\"}"};

static struct tnl_stream *nth(struct rig *r, unsigned n)
{
	struct tnl_stream *st = next_stream(r->s, NULL);
	while (st && n--)
		st = next_stream(r->s, st);
	return st;
}

static void open_one(struct rig *r, uint16_t listener)
{
	r->own_opens++;
	if (r->agent)
		(void)tnl_stream_open_reverse(r->s, NULL, listener, "192.0.2.7:50000", r->now, NULL);
	else
		(void)tnl_stream_open(r->s, NULL, r->now, NULL);
}

static void local_step(struct rig *r, uint8_t arg, size_t n)
{
	struct tnl_stream *st = nth(r, arg >> 4);
	switch (arg & 15) {
	case 0:
		open_one(r, (uint16_t)n);
		break;
	case 1:
		if (st)
			tnl_stream_shutdown(st, r->now);
		break;
	case 2:
		if (st)
			tnl_stream_reset(st, TNL_RESET_PEER, r->now);
		break;
	case 3:
		tnl_stream_free(st);
		break;
	case 4:
		if (st)
			tnl_stream_connected(st, r->now);
		break;
	case 5:
		if (st)
			tnl_stream_want_send(st, true);
		rig_write(r, 100 * n);
		break;
	case 6:
		r->take = n;
		break;
	case 7:
		rig_read(r);
		break;
	case 8:
		tnl_session_send_size(r->s, (unsigned)n, 24, r->now);
		break;
	case 9:
		tnl_session_send_flag(r->s, (uint32_t)n, r->now);
		break;
	case 10:
		tnl_session_send_exit_code(r->s, (int)n, r->now);
		break;
	case 11:
		tnl_session_link_down(r->s, r->now);
		break;
	case 12:
		tnl_session_link_up(r->s, r->now);
		break;
	case 13:
		rig_handshake(r, n & 1);
		break;
	case 14:
		r->now += n * n * RIG_SEC / 100;
		tnl_session_expire(r->s, r->now);
		break;
	default:
		if (n > 200)
			tnl_session_abort(r->s, TNL_ECLOSED, "enough", r->now);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct rig r;
	if (size < 1)
		return 0;
	unsigned kind = (data[0] >> 1) & 3;
	rig_init(&r, data[0] & 1, types[kind], props[kind], data[0] & 8, data[0] & 16);
	if (data[0] & 32)
		rig_handshake(&r, data[0] & 64);
	size_t i = 1;
	while (i + 2 < size && !r.closed) {
		uint8_t op = data[i], arg = data[i + 1];
		size_t n = data[i + 2], step;
		i += 3;
		step = n * (op & 0x80 ? 64 : 1);
		step = TNL_MIN(step, size - i);
		const uint8_t *p = data + i;
		switch (op & 7) {
		case 0:
			local_step(&r, arg, n);
			step = 0;
			break;
		case 1: /* the next message, of any payload type */
			rig_stream(&r, arg == 200 ? TNL_PT_REVERSE : arg, p, step);
			break;
		case 2: /* out of order, or again */
			rig_message(&r, r.agent ? TNL_MT_INPUT : TNL_MT_OUTPUT, r.seq + (int8_t)arg, TNL_PT_OUTPUT, p,
				    step);
			break;
		case 3: /* any message type */
			rig_message(&r, (enum tnl_mtype)(arg % TNL_MT_COUNT), (int8_t)(op >> 3), TNL_PT_OUTPUT, p,
				    step);
			break;
		case 4:
			rig_ack(&r, (int8_t)arg);
			step = 0;
			break;
		case 5:
			(void)!tnl_session_feed(r.s, p, step, r.now);
			break;
		case 6:
			rig_message(&r, TNL_MT_CHANNEL_CLOSED, 0, 0, p, step);
			break;
		default:
			rig_stream(&r, TNL_PT_OUTPUT, p, step);
		}
		i += step;
		rig_drain(&r);
		if (tnl_session_deadline(r.s) <= r.now)
			tnl_session_expire(r.s, r.now);
	}
	rig_fini(&r);
	return 0;
}
