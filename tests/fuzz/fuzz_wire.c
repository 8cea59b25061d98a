/* Payloads of the control and data channels; the first byte chooses the reader. */
#include "lib/alloc.h"
#include "lib/wire.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void start(const uint8_t *p, size_t n)
{
	struct tnl_start s;
	const char *fault;

	if (!tnl_start_parse(p, n, &s, &fault)) {
		/* What goes on into the handshake is JSON. */
		struct tnl_json *j = tnl_json_parse(s.properties_json, strlen(s.properties_json));
		if (!j || !s.session_id || !s.session_type)
			abort();
		tnl_json_free(j);
		tnl_start_fini(&s);
	} else if (!fault) {
		abort();
	}
}

static void open_frame(const uint8_t *p, size_t n)
{
	struct tnl_open o, again;
	const char *fault;
	struct tnl_buf b;

	if (tnl_open_parse(p, n, &o, &fault))
		return;
	tnl_buf_init(&b, n * 8 + 256);
	if (tnl_open_write(&b, &o) || tnl_open_parse(tnl_buf_data(&b), tnl_buf_len(&b), &again, &fault) ||
	    strcmp(o.token, again.token) != 0)
		abort();
	tnl_open_fini(&again);
	tnl_open_fini(&o);
	tnl_buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct tnl_channel_closed c;
	struct tnl_task t;
	char *token;

	if (!n)
		return 0;
	switch (*p++ % 5) {
	case 0:
		if (!tnl_create_reply_parse(p, n - 1, &token) && !*token)
			abort();
		tnl_free(token);
		break;
	case 1:
		start(p, n - 1);
		break;
	case 2:
		open_frame(p, n - 1);
		break;
	case 3:
		if (!tnl_channel_closed_parse(p, n - 1, &c))
			tnl_channel_closed_fini(&c);
		break;
	default:
		if (!tnl_task_parse(p, n - 1, &t))
			tnl_task_fini(&t);
	}
	return 0;
}
