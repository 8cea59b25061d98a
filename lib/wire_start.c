/* interactive_shell: the message that starts a session on an agent. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/wire.h"
#include <stdlib.h>
#include <string.h>

#define START_MAX (256u * 1024)
#define SESSION_ID_MAX 256
#define MEMBERS_MAX 256
#define PARAMETERS_MAX 64

static void put_grant(struct tnl_jw *w, const char *key, bool is_given)
{
	if (!is_given)
		return;
	tnl_jw_key(w, key);
	tnl_jw_bool(w, true);
}

static void put_grants(struct tnl_jw *w, const struct tnl_start_grants *g)
{
	if (!g || (!g->dial && !g->reverse))
		return;
	tnl_jw_key(w, "TunneldGrants");
	tnl_jw_obj(w);
	put_grant(w, "Dial", g->dial);
	put_grant(w, "Reverse", g->reverse);
	tnl_jw_end_obj(w);
}

int tnl_start_write(struct tnl_buf *b, const char *session_id, const char *document_name,
		    const char *document_content_json, const char *parameters_json, const char *owner,
		    const char *run_as, const struct tnl_start_grants *grants)
{
	struct tnl_buf content;
	struct tnl_jw w;

	tnl_buf_init(&content, START_MAX);
	tnl_jw_init(&w, &content);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "DocumentName", document_name);
	tnl_jw_key(&w, "DocumentContent");
	tnl_jw_raw(&w, document_content_json);
	tnl_jw_kv(&w, "SessionId", session_id);
	tnl_jw_key(&w, "Parameters");
	tnl_jw_raw(&w, parameters_json ? parameters_json : "{}");
	tnl_jw_kv(&w, "RunAsUser", run_as ? run_as : "");
	tnl_jw_kv(&w, "SessionOwner", owner ? owner : "");
	put_grants(&w, grants);
	tnl_jw_end_obj(&w);

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_key(&w, "Content");
	tnl_jw_strn(&w, (const char *)tnl_buf_data(&content), tnl_buf_len(&content));
	tnl_jw_kv(&w, "TaskId", session_id);
	tnl_jw_kv(&w, "Topic", "aws.ssm.startSession");
	tnl_jw_kvi(&w, "SchemaVersion", 1);
	tnl_jw_end_obj(&w);
	bool failed = content.failed || b->failed;
	tnl_buf_fini(&content);
	return failed ? TNL_ELIMIT : 0;
}

/* --- parameters ----------------------------------------------------------------- */

/* Value of a parameter: what the user gave, else the document's default.  A
 * list counts with its first element. */
static const char *parameter(const struct tnl_json *given, const struct tnl_json *declared, const char *name)
{
	const struct tnl_json *v = tnl_json_get(given, name);
	if (!v)
		v = tnl_json_iget(tnl_json_get(declared, name), "default");
	if (tnl_json_is_arr(v))
		v = tnl_json_first(v);
	return tnl_json_str(v);
}

/* "{{ name }}" at s: length of the placeholder and the name's place, or 0. */
static size_t placeholder(const char *s, const char **nm, size_t *nlen)
{
	const char *p = s;

	if (p[0] != '{' || p[1] != '{')
		return 0;
	p += 2;
	while (*p == ' ')
		p++;
	*nm = p;
	p += strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:");
	*nlen = (size_t)(p - *nm);
	while (*p == ' ')
		p++;
	return *nlen && p[0] == '}' && p[1] == '}' ? (size_t)(p + 2 - s) : 0;
}

struct subst {
	const struct tnl_json *given, *declared;
	struct tnl_buf text;
	struct tnl_jw w;
};

/* A parameter's value is text and is not looked at again for placeholders. */
static void put_substituted(struct subst *s, const char *text)
{
	tnl_buf_reset(&s->text);
	while (*text) {
		const char *nm, *value = NULL;
		size_t nlen, n = placeholder(text, &nm, &nlen);
		char key[128];
		if (n && nlen < sizeof(key)) {
			memcpy(key, nm, nlen);
			key[nlen] = '\0';
			value = parameter(s->given, s->declared, key);
		}
		n = n ? n : 1;
		if (value)
			tnl_buf_puts(&s->text, value);
		else
			tnl_buf_put(&s->text, text, n);
		text += n;
	}
	if (s->text.failed)
		s->w.b->failed = true;
	tnl_jw_strn(&s->w, (const char *)tnl_buf_data(&s->text), tnl_buf_len(&s->text));
}

static int by_key(const void *a, const void *b)
{
	const struct tnl_json *const *x = a, *const *y = b;
	return strcmp(tnl_json_key(*x), tnl_json_key(*y));
}

static void put_value(struct subst *s, const struct tnl_json *v);

/* Members in the order of their names, as stock agents pass them on in the handshake. */
static void put_members(struct subst *s, const struct tnl_json *v)
{
	const struct tnl_json *sorted[MEMBERS_MAX];
	size_t n = 0;

	tnl_json_each(m, v) {
		if (n == MEMBERS_MAX) {
			s->w.b->failed = true;
			return;
		}
		sorted[n++] = m;
	}
	qsort(sorted, n, sizeof(sorted[0]), by_key);
	tnl_jw_obj(&s->w);
	for (size_t i = 0; i < n; i++) {
		tnl_jw_key(&s->w, tnl_json_key(sorted[i]));
		put_value(s, sorted[i]);
	}
	tnl_jw_end_obj(&s->w);
}

static void put_value(struct subst *s, const struct tnl_json *v)
{
	/* Stop at once when it got too big: short placeholders can stand for long values. */
	if (s->w.b->failed)
		return;
	if (tnl_json_is_obj(v)) {
		put_members(s, v);
	} else if (tnl_json_is_arr(v)) {
		tnl_jw_arr(&s->w);
		tnl_json_each(e, v)
			put_value(s, e);
		tnl_jw_end_arr(&s->w);
	} else if (tnl_json_str(v)) {
		put_substituted(s, tnl_json_str(v));
	} else {
		struct tnl_buf one;
		tnl_buf_init(&one, 128);
		const char *text = tnl_json_print(v, &one) ? NULL : tnl_buf_str(&one);
		if (text)
			tnl_jw_raw(&s->w, text);
		else
			s->w.b->failed = true;
		tnl_buf_fini(&one);
	}
}

/* v with all placeholders replaced, as compact JSON; NULL: too large or no memory. */
static char *substitute(const struct tnl_json *v, const struct tnl_json *given, const struct tnl_json *declared)
{
	struct subst s = {.given = given, .declared = declared};
	struct tnl_buf out;
	char *json = NULL;

	tnl_buf_init(&s.text, START_MAX);
	tnl_buf_init(&out, START_MAX);
	tnl_jw_init(&s.w, &out);
	put_value(&s, v);
	if (!out.failed)
		json = tnl_buf_steal_str(&out);
	tnl_buf_fini(&out);
	tnl_buf_fini(&s.text);
	return json;
}

/* --- reading ---------------------------------------------------------------------- */

/* The id goes into paths, logs and file names. */
bool tnl_session_id_ok(const char *s, size_t max)
{
	size_t n = s ? strlen(s) : 0;

	if (!n || n > max || strcmp(s, ".") == 0 || strcmp(s, "..") == 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((uint8_t)s[i] <= 0x20 || (uint8_t)s[i] >= 0x7f || strchr("/\\?#%\"<>", s[i]))
			return false;
	return true;
}

static bool take(char **to, const struct tnl_json *v, size_t max)
{
	return !tnl_json_str(v) || tnl_json_take_str(v, max, to) == 0;
}

static const char *read_document(const struct tnl_json *c, struct tnl_start *s)
{
	const struct tnl_json *doc = tnl_json_iget(c, "DocumentContent");
	const struct tnl_json *props = tnl_json_iget(doc, "properties"), *inputs = tnl_json_iget(doc, "inputs");
	const struct tnl_json *declared = tnl_json_iget(doc, "parameters"), *given = tnl_json_iget(c, "Parameters");

	if (!tnl_json_is_obj(doc))
		return "DocumentContent";
	/* Looked through for each placeholder. */
	if (tnl_json_len(declared) > PARAMETERS_MAX || tnl_json_len(given) > PARAMETERS_MAX)
		return "parameters";
	if (!tnl_json_str(tnl_json_iget(doc, "sessionType")) ||
	    !take(&s->session_type, tnl_json_iget(doc, "sessionType"), TNL_WORD_MAX))
		return "sessionType";
	s->properties_json = tnl_json_is_obj(props) ? substitute(props, given, declared) : tnl_strdup("{}");
	if (!s->properties_json)
		return "properties";
	if (!tnl_json_is_obj(inputs))
		return NULL;
	s->inputs_json = substitute(inputs, given, declared);
	if (!s->inputs_json)
		return "inputs";
	const char *kms = tnl_json_str(tnl_json_iget(inputs, "kmsKeyId"));
	if (kms && *kms && !take(&s->kms_key_id, tnl_json_iget(inputs, "kmsKeyId"), TNL_ARN_MAX))
		return "kmsKeyId";
	return NULL;
}

static const char *read_content(const struct tnl_json *c, struct tnl_start *s)
{
	if (!tnl_json_is_obj(c))
		return "Content";
	if (!tnl_session_id_ok(tnl_json_str(tnl_json_iget(c, "SessionId")), SESSION_ID_MAX) ||
	    !take(&s->session_id, tnl_json_iget(c, "SessionId"), SESSION_ID_MAX))
		return "SessionId";
	if (!take(&s->document_name, tnl_json_iget(c, "DocumentName"), TNL_NAME_MAX))
		return "DocumentName";
	if (!take(&s->session_owner, tnl_json_iget(c, "SessionOwner"), TNL_ARN_MAX))
		return "SessionOwner";
	if (!take(&s->run_as, tnl_json_iget(c, "RunAsUser"), TNL_NAME_MAX))
		return "RunAsUser";
	const struct tnl_json *grants = tnl_json_iget(c, "TunneldGrants");
	s->grants.dial = tnl_json_bool(tnl_json_get(grants, "Dial"), false);
	s->grants.reverse = tnl_json_bool(tnl_json_get(grants, "Reverse"), false);
	return read_document(c, s);
}

int tnl_start_parse(const void *p, size_t n, struct tnl_start *s, const char **fault)
{
	struct tnl_json *outer = tnl_json_parse(p, n);
	const struct tnl_json *v = tnl_json_iget(outer, "Content");
	const char *text = tnl_json_str(v);
	struct tnl_json *inner = text ? tnl_json_parse(text, strlen(text)) : NULL;

	memset(s, 0, sizeof(*s));
	const char *why = outer ? read_content(inner, s) : "JSON";
	tnl_json_free(inner);
	tnl_json_free(outer);
	if (fault)
		*fault = why;
	if (!why)
		return 0;
	tnl_start_fini(s);
	return TNL_ESYNTAX;
}

void tnl_start_fini(struct tnl_start *s)
{
	tnl_free(s->session_id);
	tnl_free(s->document_name);
	tnl_free(s->session_type);
	tnl_free(s->session_owner);
	tnl_free(s->run_as);
	tnl_free(s->properties_json);
	tnl_free(s->kms_key_id);
	tnl_free(s->inputs_json);
	memset(s, 0, sizeof(*s));
}
