/* The 120-byte message and the payload of its ack: fields at fixed places, names padded with
 * blanks, the digest over the payload. The ack's JSON is written and read by hand. */
#include "lib/message.h"
#include "lib/crc32c.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/json.h"
#include "lib/num.h"
#include <stdbool.h>
#include <string.h>

enum {
	OFF_TYPE = 4,
	OFF_SCHEMA = 36,
	OFF_CREATED = 40,
	OFF_SEQ = 48,
	OFF_FLAGS = 56,
	OFF_ID = 64,
	OFF_DIGEST = 80,
	OFF_PTYPE = 112,
	OFF_PLEN = 116,
	TYPE_LEN = 32,
	DIGEST_LEN = 32,
	CRC_AT = DIGEST_LEN - 4 /* behind its mark, which stands where a SHA-256 begins and is filled up with zeros */
};

static const uint8_t crc_mark[CRC_AT] = "CRC32C";

static const char *const type_names[TNL_MT_COUNT] = {
    [TNL_MT_UNKNOWN] = "unknown",
    [TNL_MT_INPUT] = "input_stream_data",
    [TNL_MT_OUTPUT] = "output_stream_data",
    [TNL_MT_ACK] = "acknowledge",
    [TNL_MT_CHANNEL_CLOSED] = "channel_closed",
    [TNL_MT_START_PUBLICATION] = "start_publication",
    [TNL_MT_PAUSE_PUBLICATION] = "pause_publication",
    [TNL_MT_INTERACTIVE_SHELL] = "interactive_shell",
    [TNL_MT_AGENT_JOB] = "agent_job",
    [TNL_MT_AGENT_JOB_ACK] = "agent_job_ack",
    [TNL_MT_AGENT_JOB_REPLY] = "agent_job_reply",
    [TNL_MT_AGENT_JOB_REPLY_ACK] = "agent_job_reply_ack",
    [TNL_MT_TASK_COMPLETE] = "agent_task_complete",
    [TNL_MT_TASK_ACK] = "agent_task_acknowledge",
    [TNL_MT_TASK_REPLY] = "agent_task_reply",
    [TNL_MT_SESSION_STATE] = "agent_session_state",
    [TNL_MT_TELEMETRY] = "agent_telemetry",
    [TNL_MT_UPDATE_RESULT] = "agent_update_result",
    [TNL_MT_DIRECT] = "tunneld_direct",
};

static const char *type_name(enum tnl_mtype t)
{
	return (unsigned)t < TNL_MT_COUNT ? type_names[t] : type_names[TNL_MT_UNKNOWN];
}

static enum tnl_mtype type_of(const char *s, size_t n)
{
	/* The three of the data path first. */
	for (unsigned t = TNL_MT_INPUT; t < TNL_MT_COUNT; t++)
		if (strlen(type_names[t]) == n && memcmp(type_names[t], s, n) == 0)
			return (enum tnl_mtype)t;
	return TNL_MT_UNKNOWN;
}

static bool is_padding(char c)
{
	return !c || c == ' ' || (c >= '\t' && c <= '\r');
}

static int bad_field(struct tnl_msg_fault *fault, const char *field, int err)
{
	if (fault)
		fault->field = field;
	return err;
}

static void swap_halves(uint8_t *to, const uint8_t *from)
{
	memcpy(to, from + 8, 8);
	memcpy(to + 8, from, 8);
}

/* The gateway's publication messages are known by their type alone: lengths
 * and digest come wrong, so only what can be trusted is filled in. */
static int decode_publication(const uint8_t *p, size_t n, struct tnl_msg *out)
{
	if (n >= OFF_PTYPE) {
		out->created_ms = tnl_get_be64(p + OFF_CREATED);
		swap_halves(out->id, p + OFF_ID);
	}
	out->payload = p + n;
	return 0;
}

/* Stock ends cut NULs and white space off both sides: some clients fill the field up from the front. */
enum tnl_mtype tnl_msg_type(const uint8_t *p)
{
	/* As almost all write the three of the data path. */
	static const struct {
		char name[TYPE_LEN + 1];
		enum tnl_mtype type;
	} usual[] = {{"output_stream_data              ", TNL_MT_OUTPUT},
		     {"acknowledge                     ", TNL_MT_ACK},
		     {"input_stream_data               ", TNL_MT_INPUT}};
	const char *s = (const char *)p + OFF_TYPE, *end = s + TYPE_LEN;

	for (size_t i = 0; i < TNL_COUNT(usual); i++)
		if (memcmp(s, usual[i].name, TYPE_LEN) == 0)
			return usual[i].type;
	while (s < end && is_padding(*s))
		s++;
	while (s < end && is_padding(end[-1]))
		end--;
	return type_of(s, (size_t)(end - s));
}

static void note_odd(struct tnl_msg *m, unsigned what, struct tnl_msg_fault *fault, const char *field)
{
	m->odd |= what;
	if (fault && !fault->field)
		fault->field = field;
}

int tnl_msg_peek(const uint8_t *p, size_t n, struct tnl_msg *out, struct tnl_msg_fault *fault)
{
	memset(out, 0, sizeof(*out));
	if (fault)
		fault->field = NULL;
	if (n < OFF_SCHEMA)
		return bad_field(fault, "length", TNL_ESYNTAX);
	out->type = tnl_msg_type(p);
	if (out->type == TNL_MT_START_PUBLICATION || out->type == TNL_MT_PAUSE_PUBLICATION)
		return decode_publication(p, n, out);
	if (n < TNL_MSG_HDR)
		return bad_field(fault, "length", TNL_ESYNTAX);
	if (tnl_get_be32(p) != TNL_MSG_HEADER_LENGTH)
		return bad_field(fault, "HeaderLength", TNL_ESYNTAX);
	if (n - TNL_MSG_HDR > TNL_MSG_MAX_PAYLOAD)
		return bad_field(fault, "PayloadLength", TNL_ESYNTAX);
	out->schema = tnl_get_be32(p + OFF_SCHEMA);
	out->created_ms = tnl_get_be64(p + OFF_CREATED);
	out->seq = (int64_t)tnl_get_be64(p + OFF_SEQ);
	out->flags = tnl_get_be64(p + OFF_FLAGS);
	swap_halves(out->id, p + OFF_ID);
	out->ptype = tnl_get_be32(p + OFF_PTYPE);
	out->plen = (uint32_t)(n - TNL_MSG_HDR);
	out->payload = p + TNL_MSG_HDR;
	if (tnl_get_be32(p + OFF_PLEN) != out->plen)
		note_odd(out, TNL_ODD_LENGTH, fault, "PayloadLength");
	if (out->schema != 1)
		note_odd(out, TNL_ODD_SCHEMA, fault, "SchemaVersion");
	if (!out->created_ms)
		return bad_field(fault, "CreatedDate", TNL_ESYNTAX);
	return out->type == TNL_MT_UNKNOWN ? bad_field(fault, "MessageType", TNL_ETYPE) : 0;
}

static void put_digest(uint8_t d[DIGEST_LEN], enum tnl_digest kind, const uint8_t *p, size_t n)
{
	if (kind == TNL_DIGEST_SHA256) {
		tnl_sha256(p, n, d);
		return;
	}
	memcpy(d, crc_mark, CRC_AT);
	tnl_put_be32(d + CRC_AT, tnl_crc32c(p, n));
}

int tnl_msg_decode_lax(const uint8_t *p, size_t n, enum tnl_digest digest, struct tnl_msg *out,
		       struct tnl_msg_fault *fault)
{
	uint8_t d[DIGEST_LEN];
	int rc = tnl_msg_peek(p, n, out, fault);

	if ((rc && rc != TNL_ETYPE) || !out->plen)
		return rc;
	if (digest == TNL_DIGEST_CRC32C && memcmp(p + OFF_DIGEST, crc_mark, CRC_AT) != 0)
		digest = TNL_DIGEST_SHA256;
	put_digest(d, digest, out->payload, out->plen);
	if (memcmp(d, p + OFF_DIGEST, sizeof(d)) != 0)
		note_odd(out, TNL_ODD_DIGEST, fault, "PayloadDigest");
	return rc;
}

int tnl_msg_decode_agreed(const uint8_t *p, size_t n, enum tnl_digest digest, struct tnl_msg *out,
			  struct tnl_msg_fault *fault)
{
	int rc = tnl_msg_decode_lax(p, n, digest, out, fault);

	if ((rc && rc != TNL_ETYPE) || !out->odd)
		return rc;
	if (out->odd & TNL_ODD_LENGTH)
		return bad_field(fault, "PayloadLength", TNL_ESYNTAX);
	if (out->odd & TNL_ODD_SCHEMA)
		return bad_field(fault, "SchemaVersion", TNL_ESYNTAX);
	return bad_field(fault, "PayloadDigest", TNL_EDIGEST);
}

int tnl_msg_decode(const uint8_t *p, size_t n, struct tnl_msg *out, struct tnl_msg_fault *fault)
{
	return tnl_msg_decode_agreed(p, n, TNL_DIGEST_SHA256, out, fault);
}

void tnl_msg_seal(uint8_t *p, const struct tnl_msg *m)
{
	const char *name = type_name(m->type);
	size_t n = strlen(name);

	tnl_put_be32(p, TNL_MSG_HEADER_LENGTH);
	memcpy(p + OFF_TYPE, name, n);
	memset(p + OFF_TYPE + n, ' ', TYPE_LEN - n);
	tnl_put_be32(p + OFF_SCHEMA, m->schema);
	tnl_put_be64(p + OFF_CREATED, m->created_ms);
	tnl_put_be64(p + OFF_SEQ, (uint64_t)m->seq);
	tnl_put_be64(p + OFF_FLAGS, m->flags);
	swap_halves(p + OFF_ID, m->id);
	put_digest(p + OFF_DIGEST, m->digest, p + TNL_MSG_HDR, m->plen);
	tnl_put_be32(p + OFF_PTYPE, m->ptype);
	tnl_put_be32(p + OFF_PLEN, m->plen);
}

size_t tnl_msg_encode(uint8_t *out, const struct tnl_msg *m)
{
	if (m->plen)
		memmove(out + TNL_MSG_HDR, m->payload, m->plen);
	tnl_msg_seal(out, m);
	return TNL_MSG_HDR + m->plen;
}

/* --- what an ack says of the next hop -------------------------------------- */

#define HOP_TOLD ((int64_t)1 << 61)
#define HOP_REPAIRS ((int64_t)1 << 60)

bool tnl_ack_tell_hop(uint8_t *msg, const struct tnl_hop *h)
{
	if ((int64_t)tnl_get_be64(msg + OFF_SEQ) != TNL_HOP_ASKED)
		return false;
	uint64_t us = TNL_MIN(h->queue / 1000, (uint64_t)UINT32_MAX);
	tnl_put_be64(msg + OFF_SEQ, (uint64_t)(HOP_TOLD | (h->repairs ? HOP_REPAIRS : 0)) | us);
	if (h->full)
		tnl_put_be64(msg + OFF_FLAGS, tnl_get_be64(msg + OFF_FLAGS) | TNL_MF_FULL);
	return true;
}

bool tnl_ack_hop(const struct tnl_msg *ack, struct tnl_hop *h)
{
	if ((ack->seq & ~(HOP_REPAIRS | (int64_t)UINT32_MAX)) != HOP_TOLD)
		return false;
	h->queue = ((uint64_t)ack->seq & UINT32_MAX) * 1000;
	h->repairs = ack->seq & HOP_REPAIRS;
	h->full = ack->flags & TNL_MF_FULL;
	return true;
}

/* --- acknowledge ---------------------------------------------------------- */

#define ACK_JSON_MAX 1024u /* whoever writes it; it has some 200 */
#define ACK_TYPE "{\"AcknowledgedMessageType\":\""
#define ACK_ID "\",\"AcknowledgedMessageId\":\""
#define ACK_SEQ "\",\"AcknowledgedMessageSequenceNumber\":"
#define ACK_END ",\"IsSequentialMessage\":true}"

static char *append_text(char *to, const char *s, size_t n)
{
	memcpy(to, s, n);
	return to + n;
}

static char *append_i64(char *to, int64_t v)
{
	char tmp[20];
	size_t n = 0;
	uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

	if (v < 0)
		*to++ = '-';
	do
		tmp[n++] = (char)('0' + u % 10);
	while (u /= 10);
	while (n)
		*to++ = tmp[--n];
	return to;
}

size_t tnl_ack_write(char out[TNL_ACK_MAX], const struct tnl_ack *a)
{
	const char *name = type_name(a->type);
	char id[TNL_UUID_STR], *p = out;

	tnl_uuid_str(a->id, id);
	p = append_text(p, ACK_TYPE, sizeof(ACK_TYPE) - 1);
	p = append_text(p, name, strlen(name));
	p = append_text(p, ACK_ID, sizeof(ACK_ID) - 1);
	p = append_text(p, id, sizeof(id) - 1);
	p = append_text(p, ACK_SEQ, sizeof(ACK_SEQ) - 1);
	p = append_i64(p, a->seq);
	p = append_text(p, ACK_END, sizeof(ACK_END) - 1);
	return (size_t)(p - out);
}

static bool skip_text(const char **p, const char *end, const char *text, size_t n)
{
	if ((size_t)(end - *p) < n || memcmp(*p, text, n) != 0)
		return false;
	*p += n;
	return true;
}

/* The layout that stock ends and we ourselves write; anything else is left to the JSON parser. */
static bool ack_parse_fast(const char *p, size_t n, struct tnl_ack *a)
{
	const char *end = p + n;

	if (!skip_text(&p, end, ACK_TYPE, sizeof(ACK_TYPE) - 1))
		return false;
	const char *q = memchr(p, '"', (size_t)(end - p));
	if (!q)
		return false;
	a->type = type_of(p, (size_t)(q - p));
	p = q;
	if (a->type == TNL_MT_UNKNOWN || !skip_text(&p, end, ACK_ID, sizeof(ACK_ID) - 1) || end - p < 36 ||
	    tnl_uuid_parse(p, 36, a->id))
		return false;
	p += 36;
	if (!skip_text(&p, end, ACK_SEQ, sizeof(ACK_SEQ) - 1))
		return false;
	const char *from = p;
	int64_t seq = 0;
	while (p < end && *p >= '0' && *p <= '9' && p - from < 18)
		seq = seq * 10 + (*p++ - '0');
	if (p == from || (*from == '0' && p - from > 1) || !skip_text(&p, end, ACK_END, sizeof(ACK_END) - 1))
		return false;
	a->seq = seq;
	return p == end;
}

/* Stock ends go by the number alone, and their names of members by Go's rule: without regard to case. */
int tnl_ack_parse(const uint8_t *p, size_t n, struct tnl_ack *a)
{
	if (ack_parse_fast((const char *)p, n, a))
		return 0;
	struct tnl_json *j = n <= ACK_JSON_MAX ? tnl_json_parse(p, n) : NULL;
	const char *type = tnl_json_str(tnl_json_iget(j, "AcknowledgedMessageType"));
	const char *id = tnl_json_str(tnl_json_iget(j, "AcknowledgedMessageId"));
	int64_t seq;
	int rc = TNL_ESYNTAX;

	memset(a, 0, sizeof(*a));
	if (tnl_json_int(tnl_json_iget(j, "AcknowledgedMessageSequenceNumber"), &seq) && seq >= 0 &&
	    (!id || !tnl_uuid_parse(id, strlen(id), a->id))) {
		a->type = type ? type_of(type, strlen(type)) : TNL_MT_UNKNOWN;
		a->seq = seq;
		rc = 0;
	}
	tnl_json_free(j);
	return rc;
}
