/* smux from a hostile peer: byte 0 says which end, which version, how much a reader takes and how the
 * stream of bytes is cut into messages; the rest is that stream. */
#include "tests/fuzz/session_rig.h"
#include "lib/num.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct rig r;
	if (size < 2)
		return 0;
	bool agent = data[0] & 1, own = data[0] & 2;
	size_t chunk = (data[1] & 0x7f) + 1u;
	rig_init(&r, agent, "Port", "{\"type\":\"LocalPortForwarding\"}", false, false);
	if (!agent)
		for (int i = 0; i < 3; i++) {
			struct tnl_stream *st = tnl_stream_open(r.s, NULL, r.now, NULL);
			if (st)
				tnl_stream_want_send(st, true);
		}
	rig_handshake(&r, own);
	if (tnl_session_state(r.s) != TNL_SS_READY)
		abort();
	rig_write(&r, 1000);
	r.take = data[0] & 4 ? 0 : data[0] & 8 ? 3 : SIZE_MAX;
	for (size_t i = 2; i < size && !r.closed; i += chunk) {
		rig_stream(&r, TNL_PT_OUTPUT, data + i, TNL_MIN(size - i, chunk));
		rig_drain(&r);
		if (data[0] & 16)
			rig_read(&r);
	}
	r.take = SIZE_MAX;
	rig_read(&r);
	r.now += 700 * RIG_SEC;
	tnl_session_expire(r.s, r.now);
	rig_drain(&r);
	rig_fini(&r);
	return 0;
}
