/* Runs a fuzz target over the files of a folder, without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static int run(const char *dir, const char *name)
{
	char path[4096];
	uint8_t *data;
	FILE *f;
	long size;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "rb");
	if (!f || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0) {
		fprintf(stderr, "%s: cannot read\n", path);
		exit(1);
	}
	rewind(f);
	/* exactly as long as the input, so that reading over its end is seen */
	data = malloc(size ? (size_t)size : 1);
	if (!data || fread(data, 1, (size_t)size, f) != (size_t)size)
		exit(1);
	fclose(f);
	LLVMFuzzerTestOneInput(data, (size_t)size);
	free(data);
	return 1;
}

int main(int argc, char **argv)
{
	struct dirent *e;
	DIR *d = argc == 2 ? opendir(argv[1]) : NULL;
	int count = 0;

	if (!d) {
		fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
		return 2;
	}
	LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	while ((e = readdir(d)) != NULL)
		if (e->d_name[0] != '.')
			count += run(argv[1], e->d_name);
	closedir(d);
	printf("%s: %d seeds\n", argv[1], count);
	return count ? 0 : 1;
}
