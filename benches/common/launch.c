/* Runs a command and writes into a file how large it grew, in KiB: launch FILE COMMAND... */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words)
{
	int status;
	struct rusage usage;
	pid_t child = fork();

	if (child == 0) {
		execvp(words[2], words + 2);
		_exit(127);
	}
	if (count < 3 || wait4(child, &status, 0, &usage) != child || status != 0)
		return 1;
	FILE *file = fopen(words[1], "w");
	return !file || fprintf(file, "%ld\n", usage.ru_maxrss) < 0 || fclose(file) != 0;
}
