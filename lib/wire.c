/* JSON of the data and control channels: opening, tasks, state, channel_closed, versions. */
#include "lib/wire.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/message.h"
#include <string.h>

/* --- small helpers ----------------------------------------------------------- */

/* A string member, copied.  Absent and null give NULL; another type, too long or no memory: false. */
static bool copy_str(const struct tnl_json *v, size_t max, char **out)
{
	*out = NULL;
	return !v || tnl_json_is_null(v) || tnl_json_take_str(v, max, out) == 0;
}

/* What is for people to read: what is too long loses its end. */
static bool copy_text(const struct tnl_json *v, char **out)
{
	*out = NULL;
	return !v || tnl_json_is_null(v) || tnl_json_cut_str(v, TNL_TEXT_MAX, out) == 0;
}

static void free_str(char **s)
{
	if (*s)
		tnl_free_wiped(*s, strlen(*s));
	*s = NULL;
}

static int write_result(const struct tnl_buf *b)
{
	return b->failed ? TNL_ELIMIT : 0;
}

/* --- first frame of a channel ------------------------------------------------- */

struct field {
	const char *key;
	size_t off, max;
};

#define OPEN_FIELD(key, member, max)                                                                                   \
	{                                                                                                              \
		key, offsetof(struct tnl_open, member), max                                                            \
	}

/* In the order in which stock ends write them. */
static const struct field open_fields[] = {
    OPEN_FIELD("RequestId", request_id, TNL_WORD_MAX),
    OPEN_FIELD("TokenValue", token, TNL_TOKEN_MAX),
    OPEN_FIELD("ClientInstanceId", client_instance_id, TNL_NAME_MAX),
    OPEN_FIELD("ClientId", client_id, TNL_NAME_MAX),
    OPEN_FIELD("ClientVersion", client_version, TNL_WORD_MAX),
    OPEN_FIELD("AgentVersion", agent_version, TNL_WORD_MAX),
    OPEN_FIELD("PlatformType", platform_type, TNL_WORD_MAX),
};

static char **member(const void *object, const struct field *f)
{
	return (char **)(uintptr_t)((const char *)object + f->off);
}

int tnl_open_write(struct tnl_buf *b, const struct tnl_open *o)
{
	struct tnl_jw w;

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "MessageSchemaVersion", "1.0");
	for (size_t i = 0; i < TNL_COUNT(open_fields); i++)
		if (*member(o, &open_fields[i]))
			tnl_jw_kv(&w, open_fields[i].key, *member(o, &open_fields[i]));
	tnl_jw_end_obj(&w);
	return write_result(b);
}

int tnl_open_parse(const void *p, size_t n, struct tnl_open *o, const char **fault)
{
	struct tnl_json *j = tnl_json_parse(p, n);
	const char *version = tnl_json_get_str(j, "MessageSchemaVersion"), *why = NULL;

	memset(o, 0, sizeof(*o));
	if (!tnl_json_is_obj(j))
		why = "JSON";
	else if (!version || strcmp(version, "1.0") != 0)
		why = "MessageSchemaVersion";
	for (size_t i = 0; !why && i < TNL_COUNT(open_fields); i++)
		if (!copy_str(tnl_json_get(j, open_fields[i].key), open_fields[i].max, member(o, &open_fields[i])))
			why = open_fields[i].key;
	if (!why && (!o->token || !*o->token))
		why = "TokenValue";
	tnl_json_free(j);
	if (fault)
		*fault = why;
	if (!why)
		return 0;
	tnl_open_fini(o);
	return TNL_ESYNTAX;
}

void tnl_open_fini(struct tnl_open *o)
{
	for (size_t i = 0; i < TNL_COUNT(open_fields); i++)
		free_str(member(o, &open_fields[i]));
}

/* --- channel creation --------------------------------------------------------- */

int tnl_create_write(struct tnl_buf *b, const char *request_id, const char *client_id, unsigned link)
{
	struct tnl_jw w;

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "MessageSchemaVersion", "1.0");
	tnl_jw_kv(&w, "RequestId", request_id);
	if (client_id)
		tnl_jw_kv(&w, "ClientId", client_id);
	if (link) /* to a gateway of ours only */
		tnl_jw_kvi(&w, "Link", link);
	tnl_jw_end_obj(&w);
	return write_result(b);
}

static void put_xml_text(struct tnl_buf *b, const char *s)
{
	for (; *s; s++) {
		const char *entity = *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '&' ? "&amp;" : NULL;
		if (entity)
			tnl_buf_puts(b, entity);
		else
			tnl_buf_putc(b, *s);
	}
}

int tnl_create_reply_write(struct tnl_buf *b, const char *root, const char *token)
{
	tnl_buf_printf(b, "<%s><MessageSchemaVersion>1.0</MessageSchemaVersion><TokenValue>", root);
	put_xml_text(b, token);
	tnl_buf_printf(b, "</TokenValue></%s>", root);
	return write_result(b);
}

/* --- channel_closed ------------------------------------------------------------ */

int tnl_channel_closed_write(struct tnl_buf *b, const struct tnl_channel_closed *c)
{
	char date[TNL_ISO_STR];
	struct tnl_jw w;

	tnl_iso_date(c->created_ms, date);
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "MessageId", c->message_id ? c->message_id : "");
	tnl_jw_kv(&w, "CreatedDate", date);
	tnl_jw_kv(&w, "DestinationId", c->destination_id ? c->destination_id : "");
	tnl_jw_kv(&w, "SessionId", c->session_id ? c->session_id : "");
	tnl_jw_kv(&w, "MessageType", "channel_closed");
	tnl_jw_kvi(&w, "SchemaVersion", 1);
	tnl_jw_kv(&w, "Output", c->output ? c->output : "");
	tnl_jw_end_obj(&w);
	return write_result(b);
}

int tnl_channel_closed_parse(const void *p, size_t n, struct tnl_channel_closed *c)
{
	struct tnl_json *j = tnl_json_parse(p, n);
	bool ok = tnl_json_is_obj(j);

	memset(c, 0, sizeof(*c));
	ok = ok && copy_str(tnl_json_iget(j, "MessageId"), TNL_WORD_MAX, &c->message_id) &&
	     copy_str(tnl_json_iget(j, "SessionId"), TNL_NAME_MAX, &c->session_id) &&
	     copy_str(tnl_json_iget(j, "DestinationId"), TNL_NAME_MAX, &c->destination_id) &&
	     copy_text(tnl_json_iget(j, "Output"), &c->output);
	/* The date is of no consequence: one that does not parse stays 0. */
	const char *date = tnl_json_str(tnl_json_iget(j, "CreatedDate"));
	if (ok && date && tnl_iso_date_parse(date, strlen(date), &c->created_ms))
		c->created_ms = 0;
	tnl_json_free(j);
	if (ok)
		return 0;
	tnl_channel_closed_fini(c);
	return TNL_ESYNTAX;
}

void tnl_channel_closed_fini(struct tnl_channel_closed *c)
{
	free_str(&c->message_id);
	free_str(&c->session_id);
	free_str(&c->destination_id);
	free_str(&c->output);
}

/* --- state, task and publication payloads --------------------------------------- */

int tnl_state_write(struct tnl_buf *b, const char *state, const char *session_id)
{
	struct tnl_jw w;

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kvi(&w, "SchemaVersion", 1);
	tnl_jw_kv(&w, "SessionState", state);
	tnl_jw_kv(&w, "SessionId", session_id);
	tnl_jw_end_obj(&w);
	return write_result(b);
}

int tnl_task_complete_write(struct tnl_buf *b, const char *session_id, const char *instance_id, const char *status,
			    const char *output, int retry)
{
	static const char *const unused[] = {"S3Bucket", "S3UrlSuffix", "CwlGroup", "CwlStream"};
	struct tnl_jw w;

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kvi(&w, "SchemaVersion", 1);
	tnl_jw_kv(&w, "TaskId", session_id);
	tnl_jw_kv(&w, "Topic", "agent_task_complete");
	tnl_jw_kv(&w, "FinalTaskStatus", status);
	tnl_jw_key(&w, "IsRoutingFailure");
	tnl_jw_bool(&w, false);
	tnl_jw_kv(&w, "AwsAccountId", "");
	tnl_jw_kv(&w, "InstanceId", instance_id);
	tnl_jw_kv(&w, "Output", output ? output : "");
	for (size_t i = 0; i < TNL_COUNT(unused); i++)
		tnl_jw_kv(&w, unused[i], "");
	tnl_jw_kvi(&w, "RetryNumber", retry);
	tnl_jw_end_obj(&w);
	return write_result(b);
}

int tnl_task_parse(const void *p, size_t n, struct tnl_task *t)
{
	struct tnl_json *j = tnl_json_parse(p, n);
	bool ok = tnl_json_is_obj(j);

	memset(t, 0, sizeof(*t));
	ok = ok && copy_str(tnl_json_iget(j, "TaskId"), TNL_NAME_MAX, &t->task_id) &&
	     copy_str(tnl_json_iget(j, "Topic"), TNL_NAME_MAX, &t->topic) &&
	     copy_str(tnl_json_iget(j, "FinalTaskStatus"), TNL_WORD_MAX, &t->final_status) &&
	     copy_text(tnl_json_iget(j, "Output"), &t->output) &&
	     copy_str(tnl_json_iget(j, "InstanceId"), TNL_NAME_MAX, &t->instance_id) &&
	     copy_str(tnl_json_iget(j, "MessageId"), TNL_WORD_MAX, &t->message_id);
	tnl_json_free(j);
	if (ok && (t->task_id || t->message_id))
		return 0;
	tnl_task_fini(t);
	return TNL_ESYNTAX;
}

int tnl_task_ack_write(struct tnl_buf *b, const char *message_id, const char *task_id, const char *topic)
{
	struct tnl_jw w;

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kvi(&w, "SchemaVersion", 1);
	tnl_jw_kv(&w, "MessageId", message_id);
	tnl_jw_kv(&w, "TaskId", task_id);
	tnl_jw_kv(&w, "Topic", topic);
	tnl_jw_end_obj(&w);
	return write_result(b);
}

void tnl_task_fini(struct tnl_task *t)
{
	free_str(&t->task_id);
	free_str(&t->topic);
	free_str(&t->final_status);
	free_str(&t->output);
	free_str(&t->instance_id);
	free_str(&t->message_id);
}

int tnl_publication_write(struct tnl_buf *b, const char *session_id)
{
	struct tnl_jw w;

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "SessionId", session_id);
	tnl_jw_kvi(&w, "SchemaVersion", 1);
	tnl_jw_end_obj(&w);
	return write_result(b);
}

/* --- versions -------------------------------------------------------------------- */

static bool version_parse(const char *s, uint32_t v[4])
{
	memset(v, 0, 4 * sizeof(*v));
	for (int i = 0; s && i < 4; i++) {
		const char *from = s;
		for (; *s >= '0' && *s <= '9' && s - from < 9; s++)
			v[i] = v[i] * 10 + (uint32_t)(*s - '0');
		if (s == from || *s != (i < 3 ? '.' : '\0'))
			return false;
		s++;
	}
	return s != NULL;
}

int tnl_version_cmp(const char *a, const char *b, bool *ok)
{
	uint32_t x[4], y[4];
	bool both = version_parse(a, x);

	both = version_parse(b, y) && both;
	if (ok)
		*ok = both;
	for (int i = 0; i < 4; i++)
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	return 0;
}
