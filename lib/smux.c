#include "lib/smux.h"
#include "lib/num.h"
#include <string.h>

void tnl_smux_parser_init(struct tnl_smux_parser *p, int version, bool rst)
{
	memset(p, 0, sizeof(*p));
	p->version = version;
	p->rst = rst;
	p->need = TNL_SMUX_HDR;
}

static int bad_frame(struct tnl_smux_parser *p, const char *field, unsigned value)
{
	p->bad_field = field;
	p->bad_value = value;
	return TNL_EPROTO;
}

/* known: a command of this version, or one that was agreed on. Each but PSH has one length. */
static int check_header(struct tnl_smux_parser *p, bool known, unsigned body)
{
	if (!known)
		return bad_frame(p, "cmd", p->cur.cmd);
	if (p->cur.len != body)
		return bad_frame(p, "length", p->cur.len);
	p->need = TNL_SMUX_HDR + body;
	return 0;
}

static int in_header(struct tnl_smux_parser *p)
{
	tnl_smux_read(p->head, &p->cur);
	if (p->cur.version != p->version)
		return bad_frame(p, "version", p->cur.version);
	switch (p->cur.cmd) {
	case TNL_SMUX_PSH:
		p->left = p->cur.len;
		p->have = 0;
		return 0;
	case TNL_SMUX_UPD:
		return check_header(p, p->version >= 2, 8);
	case TNL_SMUX_RST:
		if (p->rst_words && p->cur.len > 4 && p->cur.len <= 4 + TNL_SMUX_WORDS)
			return check_header(p, p->rst, p->cur.len);
		return check_header(p, p->rst, 4);
	case TNL_SMUX_OPEN:
		return check_header(p, p->open, 4);
	case TNL_SMUX_SYN:
		return check_header(p, true, p->syn_words ? TNL_MIN((unsigned)p->cur.len, TNL_SMUX_WORDS) : 0);
	case TNL_SMUX_FIN:
	case TNL_SMUX_NOP:
		return check_header(p, true, 0);
	default:
		return check_header(p, false, 0);
	}
}

static int whole_frame(struct tnl_smux_parser *p, struct tnl_smux_event *e)
{
	const uint8_t *body = p->head + TNL_SMUX_HDR;
	e->cmd = (enum tnl_smux_cmd)p->cur.cmd;
	if (e->cmd == TNL_SMUX_UPD) {
		e->consumed = tnl_get_le32(body);
		e->window = tnl_get_le32(body + 4);
	} else if (e->cmd == TNL_SMUX_RST) {
		e->reason = tnl_get_le32(body);
		e->data = body + 4;
		e->len = p->cur.len - 4u;
	} else if (e->cmd == TNL_SMUX_OPEN) {
		e->kind = tnl_get_le32(body);
	} else if (e->cmd == TNL_SMUX_SYN) {
		e->data = body;
		e->len = p->cur.len;
	}
	p->have = 0;
	p->need = TNL_SMUX_HDR;
	return 1;
}

static size_t take_bytes(const uint8_t **in, size_t *n, size_t most)
{
	size_t k = TNL_MIN(*n, most);
	*in += k;
	*n -= k;
	return k;
}

int tnl_smux_next(struct tnl_smux_parser *p, const uint8_t **in, size_t *n, struct tnl_smux_event *e)
{
	memset(e, 0, sizeof(*e));
	while (*n) {
		const uint8_t *at = *in;
		if (p->left) {
			e->cmd = TNL_SMUX_PSH;
			e->id = p->cur.id;
			e->data = at;
			e->len = take_bytes(in, n, p->left);
			p->left -= (uint32_t)e->len;
			return 1;
		}
		size_t k = take_bytes(in, n, p->need - p->have);
		memcpy(p->head + p->have, at, k);
		p->have += (unsigned)k;
		if (p->have == TNL_SMUX_HDR && p->need == TNL_SMUX_HDR) {
			int rc = in_header(p);
			if (rc)
				return rc;
		}
		if (p->have == p->need) {
			e->id = p->cur.id;
			return whole_frame(p, e);
		}
	}
	return 0;
}
