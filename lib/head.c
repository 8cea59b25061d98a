/* The head of a stream, made and read: every field has a bound, and what does not fit its form is refused as a whole.
 */
#include "lib/head.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include <string.h>

#define FIXED 6u /* length, kind, port, length of the name */

static bool name_fits(enum tnl_head_kind kind, const char *name, size_t n, uint16_t port)
{
	if (n > TNL_HEAD_NAME)
		return false;
	for (size_t i = 0; i < n; i++) /* it is shown in lines of logs, where these would say where a value ends */
		if ((uint8_t)name[i] <= ' ' || name[i] == 0x7f || name[i] == '"' || name[i] == '\\')
			return false;
	switch (kind) {
	case TNL_HEAD_UNIX:
		return n > 1 && n <= TNL_HEAD_PATH && name[0] == '/' && port == 0;
	case TNL_HEAD_TCP:
	case TNL_HEAD_UDP:
		break;
	default:
		return false;
	}
	for (size_t i = 0; i < n; i++)
		if ((uint8_t)name[i] > 0x7f)
			return false;
	return n > 0 && port > 0;
}

int tnl_head_set(struct tnl_head *h, enum tnl_head_kind kind, const char *name, uint16_t port)
{
	size_t n = strlen(name);
	if (!name_fits(kind, name, n, port))
		return TNL_EINVAL;
	h->kind = kind;
	h->port = port;
	memcpy(h->name, name, n + 1);
	h->nfields = 0;
	return 0;
}

int tnl_head_add(struct tnl_head *h, uint8_t type, const void *value, size_t n)
{
	if (n > sizeof(h->fields) || h->nfields + 3 + n > sizeof(h->fields))
		return TNL_ELIMIT;
	uint8_t *p = h->fields + h->nfields;
	p[0] = type;
	tnl_put_be16(p + 1, (uint16_t)n);
	if (n)
		memcpy(p + 3, value, n);
	h->nfields += 3 + n;
	return 0;
}

const uint8_t *tnl_head_field(const struct tnl_head *h, uint8_t type, size_t *n)
{
	const uint8_t *p = h->fields, *end = p + h->nfields;
	while (end - p >= 3) {
		*n = tnl_get_be16(p + 1);
		if (p[0] == type)
			return p + 3;
		p += 3 + *n;
	}
	return NULL;
}

size_t tnl_head_write(const struct tnl_head *h, uint8_t out[TNL_HEAD_MAX])
{
	size_t n = strlen(h->name), all = FIXED + n + h->nfields;
	tnl_put_be16(out, (uint16_t)(all - 2));
	out[2] = (uint8_t)h->kind;
	tnl_put_be16(out + 3, h->port);
	out[5] = (uint8_t)n;
	memcpy(out + FIXED, h->name, n);
	memcpy(out + FIXED + n, h->fields, h->nfields);
	return all;
}

/* Each as long as it says, and none that has to be understood: there is no such type yet. */
static bool fields_fit(const uint8_t *p, size_t n)
{
	while (n >= 3) {
		size_t len = tnl_get_be16(p + 1);
		if (len > n - 3 || p[0] >= TNL_HEAD_MUST)
			return false;
		p += 3 + len;
		n -= 3 + len;
	}
	return n == 0;
}

int tnl_head_parse(const uint8_t *p, size_t n, struct tnl_head *h)
{
	if (n < FIXED || n > TNL_HEAD_MAX || tnl_get_be16(p) != n - 2)
		return TNL_ESYNTAX;
	size_t name = p[5], fields = n - FIXED - name;
	if (name > n - FIXED || fields > sizeof(h->fields) || p[2] > TNL_HEAD_UDP)
		return TNL_ESYNTAX;
	h->kind = (enum tnl_head_kind)p[2];
	h->port = tnl_get_be16(p + 3);
	if (!name_fits(h->kind, (const char *)p + FIXED, name, h->port) || !fields_fit(p + FIXED + name, fields))
		return TNL_ESYNTAX;
	memcpy(h->name, p + FIXED, name);
	h->name[name] = '\0';
	memcpy(h->fields, p + FIXED + name, fields);
	h->nfields = fields;
	return 0;
}

/* The two bytes of its length, which say how much room the rest takes. */
static int feed_length(struct tnl_head_reader *r, const uint8_t *p, size_t n, size_t *used)
{
	while (r->have < 2 && *used < n)
		r->len[r->have++] = p[(*used)++];
	if (r->have < 2)
		return 0;
	size_t all = 2u + tnl_get_be16(r->len);
	if (all < FIXED || all > TNL_HEAD_MAX)
		return TNL_ESYNTAX;
	r->b = tnl_malloc(all);
	if (!r->b)
		return TNL_ENOMEM;
	memcpy(r->b, r->len, 2);
	return 1;
}

int tnl_head_feed(struct tnl_head_reader *r, const uint8_t *p, size_t n, size_t *used, struct tnl_head *h)
{
	*used = 0;
	if (!r->b) {
		int rc = feed_length(r, p, n, used);
		if (rc <= 0)
			return rc;
	}
	size_t all = 2u + tnl_get_be16(r->len), take = TNL_MIN(all - r->have, n - *used);
	memcpy(r->b + r->have, p + *used, take);
	r->have += take;
	*used += take;
	if (r->have < all)
		return 0;
	int rc = tnl_head_parse(r->b, all, h);
	tnl_head_reader_fini(r);
	return rc ? rc : 1;
}

void tnl_head_reader_fini(struct tnl_head_reader *r)
{
	tnl_free(r->b);
	*r = (struct tnl_head_reader){0};
}
