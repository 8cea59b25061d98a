/* The configuration: any text is either taken or refused with lines in order, and says the same when read again. */
#include "lib/alloc.h"
#include "tests/daemon/config/config_same.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int ok)
{
	if (!ok)
		abort();
}

/* Every line names the file; numbered ones come in order; a refusal has at least one that is no warning. */
static void check_said(const char *said, int refused)
{
	long last = 0;
	int mistakes = 0;
	for (const char *line = said; *line;) {
		size_t n = strcspn(line, "\n");
		expect(line[n] == '\n');
		int warning = strncmp(line, "warning: ", 9) == 0;
		const char *at = line + (warning ? 9 : 0);
		expect(strncmp(at, "f:", 2) == 0);
		long number = strtol(at + 2, NULL, 10);
		expect(number >= last);
		last = number;
		mistakes += !warning;
		line += n + 1;
	}
	expect(refused == (mistakes > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 20000)
		return 0;
	char *text = malloc(size + 1), *said = NULL;
	size_t n;
	memcpy(text, data, size);
	text[size] = '\0';
	/* No files of the machine: names that lead elsewhere are bent. */
	for (char *s = text; (s = strchr(s, '/'));)
		*s = s[1] == '/' || (s > text && s[-1] == '/') ? '/' : '_', s++;
	long live = tnl_alloc_live();
	FILE *f = open_memstream(&said, &n);
	struct td_config *a = td_config_parse(text, "f", "/nonexistent", (unsigned)(size % 17), f);
	fclose(f);
	check_said(said, !a);
	if (a) {
		struct td_config *b = td_config_parse(text, "f", "/nonexistent", (unsigned)(size % 17), NULL);
		expect(b && config_same(a, b));
		td_config_free(b);
	}
	td_config_free(a);
	expect(tnl_alloc_live() == live);
	free(said);
	free(text);
	return 0;
}
