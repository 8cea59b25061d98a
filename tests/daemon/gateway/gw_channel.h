/* A gateway and the control channel of i-1, and what several programs do with its channels. */
#ifndef GW_CHANNEL_H
#define GW_CHANNEL_H
#include "tests/daemon/gateway/gw_util.h"

static struct end control;

static inline int begin_with(const char *extra)
{
	test_begin(extra);
	memset(&control, 0, sizeof(control));
	open_control(&control, &I1, "i-1");
	return 0;
}

static inline int begin(void **state)
{
	return begin_with("idle_timeout = 1h");
}

static inline int begin_short_tokens(void **state)
{
	return begin_with("token_ttl = 300ms");
}

static inline int begin_small(void **state)
{
	return begin_with("relay_memory = 512K\nidle_timeout = 1h");
}

static inline int end(void **state)
{
	end_reset(&control);
	turns_for(0);
	return test_end(state);
}

static inline void token_refused(struct end *e, const char *why)
{
	wait_for(e->closed);
	assert_int_equal(e->code, 1008);
	assert_true(e->n == 0);
}

static inline void terminate(struct ses *s)
{
	char body[200];
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s->id);
	assert_int_equal(ssm(&OPS, "TerminateSession", body), 200);
}

static inline void complete(const char *id, const char *status, const char *output, int retry)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	assert_int_equal(tnl_task_complete_write(&b, id, "i-1", status, output, retry), 0);
	send_msg(&control, TNL_MT_TASK_COMPLETE, 0, 0, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

#define T2(name, setup) cmocka_unit_test_setup_teardown(name, setup, end)

#endif
