/* The answer to channel creation is XML, and so are those of the query APIs; this reads the subset that such an
 * answer needs: prolog, comments, one root, its children's text with the
 * predefined entities and character references, CDATA.  No DTD, hence no
 * entity expansion. */
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/enc.h"
#include "lib/wire.h"
#include <string.h>

#define XML_DEPTH 16

struct xml {
	const char *p, *end;
	struct tnl_buf *text; /* where the wanted element's text goes; NULL: dropped */
	struct want *wants;
	size_t nwants;
};

struct want {
	const char *name;
	int depth; /* of the element below the root; 0: any */
	unsigned seen;
	struct tnl_buf text; /* of the first */
};

static bool at(struct xml *x, const char *s)
{
	size_t n = strlen(s);
	return (size_t)(x->end - x->p) >= n && memcmp(x->p, s, n) == 0;
}

static bool eat(struct xml *x, const char *s)
{
	if (!at(x, s))
		return false;
	x->p += strlen(s);
	return true;
}

static void space(struct xml *x)
{
	while (x->p < x->end && (*x->p == ' ' || *x->p == '\t' || *x->p == '\r' || *x->p == '\n'))
		x->p++;
}

static bool upto(struct xml *x, const char *s)
{
	const char *q = memmem(x->p, (size_t)(x->end - x->p), s, strlen(s));
	if (q)
		x->p = q + strlen(s);
	return q != NULL;
}

static size_t name(struct xml *x)
{
	const char *from = x->p;
	for (; x->p < x->end; x->p++) {
		uint8_t c = (uint8_t)*x->p;
		bool start = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == ':' || c >= 0x80;
		if (!start && (x->p == from || !((c >= '0' && c <= '9') || c == '-' || c == '.')))
			break;
	}
	return (size_t)(x->p - from);
}

/* White space, comments and processing instructions. */
static bool misc(struct xml *x)
{
	for (;;) {
		space(x);
		if (eat(x, "<!--")) {
			if (!upto(x, "-->"))
				return false;
		} else if (eat(x, "<?")) {
			if (!upto(x, "?>"))
				return false;
		} else {
			return true;
		}
	}
}

static bool attributes(struct xml *x)
{
	for (;;) {
		const char *before = x->p;
		space(x);
		if (at(x, ">") || at(x, "/>"))
			return true;
		if (x->p == before || !name(x))
			return false;
		space(x);
		if (!eat(x, "="))
			return false;
		space(x);
		const char *quote = eat(x, "\"") ? "\"" : eat(x, "'") ? "'" : NULL;
		const char *from = x->p;
		if (!quote || !upto(x, quote) || memchr(from, '<', (size_t)(x->p - from)))
			return false;
	}
}

static void put(struct xml *x, const char *s, size_t n)
{
	if (x->text)
		tnl_buf_put(x->text, s, n);
}

static bool char_reference(struct xml *x)
{
	bool hex = eat(x, "x");
	uint32_t v = 0;
	const char *from = x->p;

	for (; x->p < x->end && x->p - from < 7; x->p++) {
		char c = *x->p, l = (char)(c | 0x20);
		if (c >= '0' && c <= '9')
			v = v * (hex ? 16 : 10) + (uint32_t)(c - '0');
		else if (hex && l >= 'a' && l <= 'f')
			v = v * 16 + (uint32_t)(l - 'a' + 10);
		else
			break;
	}
	/* Tokens and messages are ASCII: what lies beyond is refused rather than encoded. */
	if (x->p == from || !eat(x, ";") || v < 0x20 || v > 0x7e)
		return false;
	char c = (char)v;
	put(x, &c, 1);
	return true;
}

static bool entity(struct xml *x)
{
	static const struct {
		const char *ref, *text;
	} known[] = {{"lt;", "<"}, {"gt;", ">"}, {"amp;", "&"}, {"quot;", "\""}, {"apos;", "'"}};

	if (eat(x, "#"))
		return char_reference(x);
	for (size_t i = 0; i < TNL_COUNT(known); i++)
		if (eat(x, known[i].ref)) {
			put(x, known[i].text, 1);
			return true;
		}
	return false;
}

static bool element(struct xml *x, int depth);

/* What stands between start and end tag. */
static bool content(struct xml *x, int depth)
{
	while (x->p < x->end) {
		const char *from = x->p;
		if (at(x, "</"))
			return true;
		if (eat(x, "<![CDATA[")) {
			from = x->p;
			if (!upto(x, "]]>"))
				return false;
			put(x, from, (size_t)(x->p - 3 - from));
		} else if (at(x, "<!--") || at(x, "<?")) {
			if (!misc(x))
				return false;
		} else if (at(x, "<")) {
			if (!element(x, depth + 1))
				return false;
		} else if (eat(x, "&")) {
			if (!entity(x))
				return false;
		} else {
			while (x->p < x->end && *x->p != '<' && *x->p != '&')
				x->p++;
			put(x, from, (size_t)(x->p - from));
		}
	}
	return false;
}

static struct want *wanted(const struct xml *x, const char *nm, size_t n, int depth)
{
	for (size_t i = 0; i < x->nwants; i++) {
		struct want *w = &x->wants[i];
		if (strlen(w->name) == n && memcmp(w->name, nm, n) == 0 && (!w->depth || w->depth == depth))
			return w;
	}
	return NULL;
}

static bool element(struct xml *x, int depth)
{
	if (depth > XML_DEPTH || !eat(x, "<"))
		return false;
	const char *nm = x->p;
	size_t nlen = name(x);
	if (!nlen || !attributes(x))
		return false;
	struct want *w = wanted(x, nm, nlen, depth);
	bool first = w && !w->seen++;
	if (eat(x, "/>"))
		return true;
	if (!eat(x, ">"))
		return false;
	struct tnl_buf *outer = x->text;
	x->text = first ? &w->text : NULL;
	bool ok = content(x, depth);
	x->text = outer;
	if (!ok || !eat(x, "</") || (size_t)(x->end - x->p) < nlen || memcmp(x->p, nm, nlen) != 0)
		return false;
	x->p += nlen;
	space(x);
	return eat(x, ">");
}

static bool document(struct xml *x, const void *p, size_t n)
{
	x->p = p;
	x->end = x->p + n;
	return n && !memchr(p, 0, n) && tnl_utf8_valid(p, n) && misc(x) && element(x, 0) && misc(x) && x->p == x->end;
}

int tnl_create_reply_parse(const void *p, size_t n, char **token)
{
	struct want w = {.name = "TokenValue", .depth = 1};
	struct xml x = {.wants = &w, .nwants = 1};
	int rc = TNL_ESYNTAX;

	*token = NULL;
	tnl_buf_init(&w.text, 16384);
	if (document(&x, p, n) && w.seen == 1 && !w.text.failed && tnl_buf_len(&w.text)) {
		*token = tnl_buf_steal_str(&w.text);
		rc = *token ? 0 : TNL_ENOMEM;
	}
	tnl_buf_fini_wiped(&w.text);
	return rc;
}

int tnl_xml_texts(const void *p, size_t n, const char *const names[], char *texts[], size_t count)
{
	struct want w[TNL_XML_TEXTS];
	struct xml x = {.wants = w, .nwants = TNL_MIN(count, (size_t)TNL_XML_TEXTS)};
	int rc = 0;

	for (size_t i = 0; i < x.nwants; i++) {
		w[i] = (struct want){.name = names[i]};
		tnl_buf_init(&w[i].text, 16384);
		texts[i] = NULL;
	}
	if (!document(&x, p, n))
		rc = TNL_ESYNTAX;
	for (size_t i = 0; i < x.nwants; i++) {
		if (rc == 0 && w[i].seen && !(texts[i] = tnl_buf_steal_str(&w[i].text)))
			rc = TNL_ENOMEM;
		tnl_buf_fini_wiped(&w[i].text);
	}
	if (rc)
		tnl_xml_texts_fini(texts, x.nwants);
	return rc;
}

void tnl_xml_texts_fini(char *texts[], size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (texts[i])
			tnl_free_wiped(texts[i], strlen(texts[i]));
		texts[i] = NULL;
	}
}
