#include "lib/num.h"
#include "tunneld/command/status.h"
#include "tunneld/command/term.h"

#include <string.h>

enum { VALUES_AT = 24 /* column */ };

static bool print_scalar(const struct tnl_json *v, FILE *f)
{
	int64_t n;
	if (tnl_json_is_obj(v) || tnl_json_is_arr(v))
		return false;
	if (tnl_json_str(v))
		td_term_put(f, *tnl_json_str(v) ? tnl_json_str(v) : "-");
	else if (tnl_json_int(v, &n))
		fprintf(f, "%lld", (long long)n);
	else if (tnl_json_is_null(v))
		fputs("-", f);
	else if (tnl_json_bool(v, false) == tnl_json_bool(v, true))
		fputs(tnl_json_bool(v, false) ? "yes" : "no", f);
	else
		fputs("?", f);
	return true;
}

static bool is_plain_list(const struct tnl_json *v)
{
	if (!tnl_json_is_arr(v))
		return false;
	tnl_json_each(m, v)
		if (tnl_json_is_obj(m) || tnl_json_is_arr(m))
			return false;
	return true;
}

static void print_list(const struct tnl_json *v, FILE *f)
{
	const struct tnl_json *first = tnl_json_first(v);
	tnl_json_each(m, v) {
		fputs(m != first ? ", " : "", f);
		print_scalar(m, f);
	}
	fputs(first ? "\n" : "none\n", f);
}

static void print_value(const char *key, const struct tnl_json *v, int depth, FILE *f)
{
	int gap = TNL_MAX(VALUES_AT - (int)strlen(key) - 2 * depth, 1);
	fprintf(f, "%*s", 2 * depth, "");
	td_term_put(f, key);
	if (tnl_json_is_obj(v)) {
		fputc('\n', f);
		td_status_tree(v, depth + 1, f);
	} else if (is_plain_list(v)) {
		fprintf(f, "%*s", gap, "");
		print_list(v, f);
	} else if (tnl_json_is_arr(v)) {
		fputc('\n', f);
		tnl_json_each(m, v) {
			fprintf(f, "%*s-\n", 2 * depth + 2, "");
			if (tnl_json_is_obj(m))
				td_status_tree(m, depth + 2, f);
		}
	} else {
		fprintf(f, "%*s", gap, "");
		print_scalar(v, f);
		fputc('\n', f);
	}
}

void td_status_tree(const struct tnl_json *object, int depth, FILE *f)
{
	tnl_json_each(m, object)
		print_value(tnl_json_key(m), m, depth, f);
}
